"""Both type checkers accept what is right in `user_code.py`, and refuse exactly the lines that are marked."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(400)  # they check the whole package, with nothing remembered from before

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CODE = HERE / "user_code.py"


def expected(checker: str) -> set[int]:
    """The numbers of the lines that a checker must refuse."""
    lines = CODE.read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if checker in line.partition("# E:")[2].split()}


def mypy() -> dict[int, str]:
    """Line → message of every error that mypy finds."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", str(CODE)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(r"^(.*?):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    # What is wrong inside of the package itself is found by its own check, not here.
    return {int(line): message for file, line, message in found if Path(file).name == CODE.name}


def pyright() -> dict[int, str]:
    """Line → message of every error that pyright finds, in its strict mode."""
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(HERE)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {
        one["range"]["start"]["line"] + 1: one["message"]
        for one in found
        if one["severity"] == "error" and Path(one["file"]).name == CODE.name
    }


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_the_checkers_refuse_the_marked_lines_and_no_others(checker: Callable[[], dict[int, str]]) -> None:
    found = checker()

    refused = {line: message for line, message in found.items() if line not in expected(checker.__name__)}
    assert not refused
    assert expected(checker.__name__) - found.keys() == set()


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_a_misspelt_option_is_named_in_the_message(checker: Callable[[], dict[int, str]]) -> None:
    line = next(n for n, text in enumerate(CODE.read_text().splitlines(), 1) if "opts(dleay=3)" in text)

    assert "dleay" in checker()[line]
