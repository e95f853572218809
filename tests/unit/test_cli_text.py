"""What the command line makes of text from the storage, and of what a user types."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from jobqueue import JobQueue
from jobqueue.cli.logs import HumanFormatter, JsonFormatter, set_up_logging
from jobqueue.cli.run import parse_queues
from jobqueue.cli.target import import_module, load_target, put_first_on_path
from jobqueue.cli.text import as_json, clean, clean_lines, payload_value, shortened
from jobqueue.durations import span
from jobqueue.errors import DeclarationError
from jobqueue.storage.memory import MemoryStorage

CONTROLS = "".join(chr(code) for code in [*range(0x20), *range(0x7F, 0xA0)])
BIDI = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\ufeff\udc80"
EVERYTHING = f"a{CONTROLS}b{BIDI}c"


def harmless(text: str) -> bool:
    return text.isprintable()


def test_clean_text_is_one_printable_line() -> None:
    assert harmless(clean(EVERYTHING))
    assert clean("\x1b[2Jx\n\r\x85") == r"\x1b[2Jx\n\r\x85"
    assert clean("grün ✓ 日本") == "grün ✓ 日本"


def test_clean_lines_keep_their_ends_and_nothing_else() -> None:
    text = clean_lines(f"one\n\ttwo\x1b[0m\r\n{EVERYTHING}")
    assert all(harmless(line) for line in text.split("\n"))
    assert text.startswith("one\n    two\\x1b[0m\\r\n")


def test_json_is_printable_ascii_and_means_the_same() -> None:
    text = as_json({"x": EVERYTHING, "é": 1})
    assert harmless(text)
    assert text.isascii()
    assert json.loads(text) == {"x": EVERYTHING, "é": 1}


@pytest.mark.parametrize("payload", [b"\xff\x00", b'{"a": NaN}', b"[" * 100_000, b"", b"9" * 5000, b'{"a": [-1e999]}'])
def test_a_payload_that_is_no_json_is_shown_as_base64(payload: bytes) -> None:
    assert list(payload_value(payload)) == ["payload_base64"]


def test_a_payload_that_is_json_is_shown_as_it_is() -> None:
    assert payload_value(b'{"a": [1, null]}') == {"arguments": {"a": [1, None]}}


def test_short_text() -> None:
    assert shortened("first\nsecond", 20) == "first"
    assert shortened("x" * 21, 20) == "x" * 19 + "…"
    assert [span(s) for s in (-1, 0, 119, 120, 7_199, 7_200, 172_799, 172_800)] == [
        "0 s", "0 s", "119 s", "2 min", "120 min", "2 h", "48 h", "2 d",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ logging


def record_with(message: str, error: BaseException | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("shop\x1b", logging.ERROR, __file__, 1, "%s", (message,), info)


def test_a_log_record_for_people_is_one_line_whatever_is_in_it() -> None:
    line = HumanFormatter().format(record_with(f"job {EVERYTHING}\n2026-01-01 forged"))
    assert harmless(line)


def test_a_traceback_in_the_log_cannot_look_like_a_record() -> None:
    lines = HumanFormatter().format(record_with("failed", ValueError(f"{EVERYTHING}\n2026-01-01 forged"))).split("\n")
    assert len(lines) > 1
    assert all(line.startswith("    ") for line in lines[1:])
    assert all(harmless(line) for line in lines)


def test_a_log_record_for_programs_is_one_json_line() -> None:
    line = JsonFormatter().format(record_with(EVERYTHING, ValueError("no")))
    assert harmless(line)
    value = json.loads(line)
    assert (value["level"], value["message"]) == ("error", EVERYTHING)
    assert "ValueError: no" in value["exception"]


def test_the_traceback_and_the_stack_of_a_record_are_written() -> None:
    record = record_with("failed", ValueError("no"))
    record.exc_text = "Traceback of another process"
    record.stack_info = 'Stack (most recent call last):\n  File "a.py"'
    assert HumanFormatter().format(record).split("\n")[1:] == [
        "    Traceback of another process", "    Stack (most recent call last):", '      File "a.py"',
    ]  # fmt: skip
    value = json.loads(JsonFormatter().format(record))
    assert (value["exception"], value["stack"]) == (record.exc_text, record.stack_info)


@contextmanager
def bare_root() -> Iterator[logging.Logger]:
    """The root without a handler: pytest gives it some for the length of a test."""
    root = logging.root
    handlers, level = root.handlers, root.level
    root.handlers = []
    try:
        yield root
    finally:
        root.handlers = handlers
        root.setLevel(level)


def test_what_no_handler_of_the_application_takes_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    own = logging.getLogger("cli_text.own")
    handler = logging.StreamHandler(io.StringIO())
    own.addHandler(handler)
    library = logging.getLogger("cli_text_library")
    library.addHandler(logging.NullHandler())  # as a library should: it is no handler of an application
    try:
        with bare_root():
            assert set_up_logging("info", json_output=False)
            for name in ("cli_text.own", "cli_text.own.part", "cli_text.other", "cli_text_library"):
                logging.getLogger(name).info("said by %s", name)
    finally:
        own.removeHandler(handler)
    written = [line.split("said by ")[1] for line in capsys.readouterr().err.splitlines()]
    assert written == ["cli_text.other", "cli_text_library"]
    assert handler.stream.getvalue().count("said by") == 2


def test_nothing_is_set_up_where_the_root_has_a_handler() -> None:
    with bare_root() as root:
        root.addHandler(logging.NullHandler())
        assert set_up_logging("debug", json_output=True)
        before, level = root.handlers[:], root.level
        assert not set_up_logging("error", json_output=True)
        assert (root.handlers, root.level) == (before, level)


# ------------------------------------------------------------------------------------------------------------- queues


def test_queues_as_typed() -> None:
    assert parse_queues("high=2,low=1") == {"high": 2, "low": 1}
    assert parse_queues(" high = 20 ") == {"high": 20}
    assert parse_queues("high,low") == ["high", "low"]


@pytest.mark.parametrize(
    "text", ["", ",", "high=2,", "high=2,low", "high=x", "high=-1", "high=²", "a,a", "a=1,a=2", "=2"]
)
def test_queues_that_cannot_be(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_queues(text)


# ------------------------------------------------------------------------------------------------------------- target


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package ``cli_shop`` in a folder that is first on the path."""
    package = tmp_path / "cli_shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "work.py").write_text(
        "from jobqueue import JobQueue\n\n\nclass Config:\n    jobs = JobQueue()\n\n\njobs = JobQueue()\nnumber = 3\n"
    )
    (package / "broken.py").write_text("import cli_shop_is_not_there\n")
    (package / "failing.py").write_text("raise ValueError('no \\x1b way')\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    put_first_on_path(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("cli_shop")]:
        del sys.modules[name]


def test_a_target_names_a_jobqueue(shop: Path) -> None:
    assert sys.path[0] == str(shop)
    module = import_module("cli_shop.work")
    assert load_target("cli_shop.work:jobs") is vars(module)["jobs"]
    assert load_target("cli_shop.work:Config.jobs") is vars(module)["Config"].jobs


@pytest.mark.parametrize(
    "target", ["cli_shop.work", "cli_shop.work:", ":jobs", "a b:c", ".x:y", "cli_shop/work.py:jobs"]
)
def test_a_target_of_another_form_is_a_usage_error(shop: Path, target: str) -> None:
    with pytest.raises(click.UsageError, match="module:attribute"):
        load_target(target)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("cli_nothing:jobs", "no module 'cli_nothing'.*--app-dir"),
        ("cli_shop.nothing:jobs", r"no module 'cli_shop\.nothing'"),
        ("cli_shop.work:job", "no 'job'; its JobQueues are: jobs"),
        ("cli_shop:jobs", "it holds no JobQueue"),
        ("cli_shop.work:number", "no JobQueue but int"),
        ("cli_shop.work:Config", "no JobQueue but type"),
        ("cli_shop.failing:jobs", "importing cli_shop.failing failed: ValueError"),
        ("cli_shop.broken:jobs", "importing cli_shop.broken failed: ModuleNotFoundError.*cli_shop_is_not_there"),
    ],
)
def test_a_target_that_leads_nowhere_is_said_to(shop: Path, target: str, words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        load_target(target)


def test_the_traceback_of_a_module_that_fails_is_shown(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DeclarationError, match=r"importing cli_shop\.failing failed: ValueError"):
        import_module("cli_shop.failing")
    told = capsys.readouterr().err
    assert "failing.py" in told
    assert "importlib" not in told
    assert "target.py" not in told, "what helps is where, not how it was come to"
    with pytest.raises(DeclarationError, match=r"cli_shop\.missing"):
        import_module("cli_shop.missing")
    assert capsys.readouterr().err == ""


def test_a_jobqueue_is_told_to_work_elsewhere() -> None:
    jobs = JobQueue("redis://nowhere", namespace="one")
    jobs.relocate()
    assert (jobs.url, jobs.namespace) == ("redis://nowhere", "one")
    jobs.relocate(url="memory://", namespace="two")
    assert (jobs.url, jobs.namespace) == ("memory://", "two")
    assert jobs.counts() == {}
    assert jobs.access.keys == JobQueue("memory://", namespace="two").access.keys


def test_a_jobqueue_with_a_storage_of_its_own_cannot_be_told_a_url() -> None:
    jobs = JobQueue(storage=MemoryStorage())
    with pytest.raises(DeclarationError, match="cannot replace it"):
        jobs.relocate(url="redis://nowhere")
    jobs.relocate(namespace="two")
    assert jobs.namespace == "two"
