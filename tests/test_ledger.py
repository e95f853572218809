"""The ledger: every sentence of the published promise names the tests that check it, and they exist."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
GUARANTEES: Final = ROOT / "docs/explanation/delivery-guarantees.md"
SECURITY: Final = ROOT / "docs/explanation/security.md"
THREATS: Final = 26
LEDGER: Final = "Which test checks which sentence"
TEST: Final = re.compile(r"\[`(\w+)`\]\(([^)]+)\)")
NOTHING_TO_CHECK: Final = frozenset({"`memory://`"})
"""Rows of the servers' table that promise nothing."""


def promise(path: Path) -> list[str]:
    """The sentences of the promise as a document has it, in its first block quote."""
    lines = path.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("> "))
    end = next(number for number, line in enumerate(lines) if number > start and not line.startswith(">"))
    text = " ".join(line.removeprefix(">").strip() for line in lines[start:end])
    return [sentence.strip() for sentence in re.split(r"(?<=\.)\s+(?=[A-Z`])", re.sub(r"\s+", " ", text))]


def section(text: str, title: str) -> str:
    """What is below a heading of the second level."""
    _, _, rest = text.partition(f"\n## {title}\n")
    assert rest, f"there is no section {title!r}"
    return rest.partition("\n## ")[0]


def tables(text: str) -> list[list[list[str]]]:
    """The cells of the rows of each table, without its head."""
    found: list[list[list[str]]] = []
    for block in re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in block.strip().splitlines()]
        found.append(rows[2:])
    return found


@functools.cache
def functions_of(path: Path) -> frozenset[str]:
    """The names of the test functions that pytest would collect from a file."""
    if not re.fullmatch(r"test_\w+\.py", path.name) or not path.is_relative_to(ROOT / "tests") or not path.is_file():
        return frozenset()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    body = ast.parse(path.read_text()).body
    return frozenset(node.name for node in body if isinstance(node, functions) and node.name.startswith("test_"))


def complaints(document: str, sentences: list[str]) -> list[str]:
    """What is wrong with the ledger of a document: sentences without tests, rows without sentences, tests that are gone."""
    ledger, servers = tables(section(document, LEDGER))
    promised = [row[0] for row in tables(section(document, "What your server keeps"))[0]]
    found: list[str] = []
    for rows, lines in ((ledger, sentences), (servers, promised)):
        for line in lines:
            if len([row for row in rows if line.startswith(row[0])]) != 1:
                found.append(f"needs one row: {line}")
        for begin, *rest in rows:
            if not any(line.startswith(begin) for line in lines):
                found.append(f"nothing begins like this: {begin}")
            named = TEST.findall(" ".join(rest))
            if not named and begin not in NOTHING_TO_CHECK:
                found.append(f"names no test: {begin}")
            for name, link in named:
                if name not in functions_of((GUARANTEES.parent / link).resolve()):
                    found.append(f"names a test that is not there, {name} in {link}: {begin}")
    return found


def test_every_sentence_of_the_promise_names_tests_that_exist() -> None:
    sentences = promise(GUARANTEES)
    assert len(sentences) == 14
    assert complaints(GUARANTEES.read_text(), sentences) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("| Every change of state |", "| Each change of state |", "needs one row: Every change"),
        ("[`test_returning_means_stored`]", "[`test_returning_means_lost`]", "not there, test_returning_means_lost"),
        ("tests/storage/test_redis.py", "tests/storage/toys.py", "test_a_server_that_evicts_is_refused in"),
        ("(../../tests/faults/test_cluster.py)", "", "names no test: cluster"),
        ("| cluster | as above", "| clusters | as above", ""),
        ("| cluster | [", "| clutter | [", "nothing begins like this: clutter"),
    ],
)  # fmt: skip
def test_a_hole_in_the_ledger_is_found(old: str, new: str, told: str) -> None:
    document = GUARANTEES.read_text()
    assert old in document

    found = complaints(document.replace(old, new), promise(GUARANTEES))

    assert any(told in line for line in found) if told else found == []


def test_a_new_sentence_needs_a_row() -> None:
    found = complaints(GUARANTEES.read_text(), [*promise(GUARANTEES), "Nothing is ever lost."])
    assert found == ["needs one row: Nothing is ever lost."]


def test_what_is_not_promised_is_said() -> None:
    """What no test can show, because it does not hold, stands in bold, each with its reason."""
    points = re.findall(r"^\* \*\*(.+?)\*\*(.*)", section(GUARANTEES.read_text(), "What is not promised"), re.MULTILINE)
    assert len(points) >= 5
    assert any("exactly once" in point for point, _ in points)


def test_the_readme_promises_nothing_else() -> None:
    """The README has the beginning of the promise, in the same words."""
    short, whole = promise(ROOT / "README.md"), promise(GUARANTEES)
    last = short.pop()
    assert short == whole[: len(short)]
    assert whole[len(short)].startswith(last.removesuffix(".")), last


def test_every_threat_names_tests_that_exist_or_says_that_there_is_no_defence_yet() -> None:
    threats, others = tables(section(SECURITY.read_text(), "The threats, one by one"))
    assert [row[0] for row in threats] == [str(number + 1) for number in range(THREATS)]
    for *_, shown in [*threats, *others]:
        named = TEST.findall(shown)
        assert named or shown == "not yet", shown
        for name, link in named:
            assert name in functions_of((SECURITY.parent / link).resolve()), f"{name} is not in {link}"
