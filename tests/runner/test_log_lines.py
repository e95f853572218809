"""Every message of the library is one short printable line, whatever it tells of."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobqueue
from jobqueue.logs import Careful

PACKAGE = Path(jobqueue.__file__).parent
LOGS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
LOGGERS = {"_LOG", "_log", "self._log", "self.log", "log", "self._report.log", "self._inbox.report.log", "report.log"}
"""What loggers are called in the package; each of them is a `Careful`, see the next test."""
MADE_IN = {"logs.py", "runner/process_child.py", "runner/processes.py", "cli/logs.py", "cli/run.py"}
"""Where loggers of the standard library are asked for: by `Careful` itself, for what jobs log, and to set up handlers."""
HOSTILE = "\x1b[2J\x1b]0;x\x07\x9b31m\u202e\r\nERROR forged\t\x00\ud800"


def sources() -> dict[str, ast.Module]:
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
        for path in PACKAGE.rglob("*.py")
        if "testing" not in path.parts
    }


def calls(tree: ast.Module) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]


def test_every_message_is_written_by_the_one_logger_that_makes_it_safe() -> None:
    strangers = []
    found = 0
    for name, tree in sources().items():
        for call in calls(tree):
            assert isinstance(call.func, ast.Attribute)
            made_by = ast.unparse(call.func.value)
            if call.func.attr in LOGS and (made_by in LOGGERS or made_by.endswith("log") or made_by == "logging"):
                found += 1
                if made_by not in LOGGERS:
                    strangers.append(f"{name}:{call.lineno} {made_by}")
            if call.func.attr == "getLogger" and name not in MADE_IN:
                strangers.append(f"{name}:{call.lineno} makes a logger")
    assert found > 30
    assert strangers == []


@given(
    st.one_of(
        st.text(), st.just(HOSTILE), st.builds(ValueError, st.text()), st.binary(), st.text().map(lambda x: x * 999)
    )
)
def test_what_a_message_tells_of_is_one_short_printable_line(value: object) -> None:
    told: list[str] = []
    to = logging.Logger("elsewhere")  # noqa: LOG001 - one that no other test can see
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    to.addHandler(handler)
    log = Careful(to)
    log.warning("job %s of %s", value, 7)
    log.error(str(value))
    assert len(told) == 2
    for line in told:
        assert line.isprintable()
        assert len(line) < 1_200


@pytest.mark.parametrize("number", [0, 1.5, True])
def test_numbers_are_formatted_by_the_message(number: float, caplog: pytest.LogCaptureFixture) -> None:
    Careful("jobqueue.runner").warning("after %.1f s", number)
    assert caplog.messages == [f"after {number:.1f} s"]
