"""A file that has the name of a module of the standard library is named, whichever of the two hides the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobqueue import shadows
from jobqueue.cli.target import load_target
from jobqueue.errors import DeclarationError

QUEUE = "from jobqueue import JobQueue\njobs = JobQueue('memory://')\n"
MAIL = "from queue import jobs\n@jobs.job\ndef f(x: int) -> None: ...\n"
TOLD = "has the name of the module {!r} of the standard library, and one hides the other: rename it"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "queue.py").write_text(QUEUE)
    (tmp_path / "mail.py").write_text(MAIL)
    return tmp_path


def said(folder: Path, *arguments: str) -> str:
    """The last line that a program says, started in this folder."""
    command = [sys.executable, *arguments]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode
    return ran.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "arguments", [["queue.py"], ["mail.py"], ["-m", "jobqueue", "run", "queue:jobs"]], ids=" ".join
)
def test_a_file_that_hides_a_module_is_named(shop: Path, arguments: list[str]) -> None:
    line = said(shop, *arguments)

    assert line.endswith(f": {shop / 'queue.py'} {TOLD.format('queue')}")


@pytest.mark.parametrize("name", ["types", "logging"])
def test_a_module_without_what_the_real_one_has_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").touch()

    assert said(tmp_path, "-c", "import jobqueue") == f"ImportError: {tmp_path / name}.py {TOLD.format(name)}"


def test_a_file_of_such_a_name_that_nobody_else_uses_is_no_matter(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("number = 3\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "__init__.py").touch()
    program = "import code, test, jobqueue; print(code.number)"

    assert subprocess.check_output([sys.executable, "-c", program], cwd=tmp_path, text=True) == "3\n"


def test_a_target_hidden_by_the_library_is_named(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(shop)
    for target in ("queue:jobs", "mail:jobs"):
        with pytest.raises(DeclarationError) as caught:
            load_target(target)
        assert str(caught.value).endswith(f": {shop / 'queue.py'} {TOLD.format('queue')}")
    with pytest.raises(DeclarationError) as caught:
        load_target("logging:jobs")
    assert "rename" not in str(caught.value)
    sys.modules.pop("mail", None)


def test_an_error_of_another_cause_blames_no_file(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(shop), *sys.path])

    assert shadows.explained(ModuleNotFoundError("no module", name="redis")) is None
    assert shadows.explained(ImportError("no jobs in queue", name="queue")) is not None
    shadows.refuse()


@pytest.mark.parametrize("program", ["import jobqueue; jobqueue.Runner", "from jobqueue import *"])
def test_a_package_that_hides_a_module_is_named_and_where_the_runner_is_imported(tmp_path: Path, program: str) -> None:
    (tmp_path / "queue").mkdir()
    (tmp_path / "queue" / "__init__.py").touch()

    assert said(tmp_path, "-c", program) == f"ImportError: {tmp_path / 'queue'} {TOLD.format('queue')}"
