"""Every variant can be planted, and the quickest of them are caught; ``python -m tests.mutants`` plants them all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.mutants.__main__ import main
from tests.mutants.audits import AUDITS
from tests.mutants.calls import CALLS
from tests.mutants.checkers import CHECKERS
from tests.mutants.edges import EDGES
from tests.mutants.moves import MOVES
from tests.mutants.runners import RUNNERS
from tests.mutants.storages import STORAGES
from tests.mutants.variant import ROOT, StaleVariant, Variant
from tests.mutants.variants import VARIANTS
from tests.mutants.workshop import PARTS, NotRunnable, Workshop


def test_names_and_changes_are_different() -> None:
    variants = (*MOVES, *RUNNERS, *STORAGES, *AUDITS, *CHECKERS, *EDGES, *CALLS)
    assert len(VARIANTS) == len(variants) >= 30
    assert len({(one.file, one.old, one.new) for one in variants}) == len(variants)
    assert all(one.old != one.new for one in variants)


@pytest.mark.parametrize("name", VARIANTS)
def test_what_a_variant_replaces_is_there_once_and_it_is_python_still(name: str, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    path = tmp_path / "jobqueue" / variant.file
    (tmp_path / "jobqueue").mkdir()
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "jobqueue" / variant.file, path)

    variant.plant(tmp_path)

    assert path.read_text() != (ROOT / "jobqueue" / variant.file).read_text()
    if path.suffix == ".py":
        compile(path.read_text(), variant.file, "exec")


def test_a_variant_whose_text_is_gone_is_told(tmp_path: Path) -> None:
    (tmp_path / "jobqueue").mkdir()
    (tmp_path / "jobqueue/errors.py").write_text("once\n")

    with pytest.raises(StaleVariant, match="0 times"):
        Variant("gone", "does nothing", "errors.py", "twice", "").plant(tmp_path)


def test_the_parts_of_the_suite_are_there() -> None:
    words = [word.removeprefix("--ignore=") for words in PARTS.values() for word in words]
    named = [word for word in words if not word.startswith("--")]
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.timeout(400)
def test_variants_are_caught(capsys: pytest.CaptureFixture[str]) -> None:
    """One of each kind, by the quickest part of the suite, through the command itself."""
    names = ["pauses-grow-on", "poison-once-more", "finish-unfenced"]
    only = [word for name in names for word in ("--only", name)]

    assert main([*only, "--part", "rules", "--json"]) == 0

    table = json.loads(capsys.readouterr().out)
    assert [one["variant"] for one in table["variants"]] == names
    assert all(one["test"] and one["seconds"] > 0 for one in table["variants"])


def test_what_is_right_survives_and_what_cannot_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "little", ("tests/unit/test_retry.py",))
    right = Variant("right", "is right", "retry.py", "DEFAULT_LIMIT: Final = 13", "DEFAULT_LIMIT: Final = 12 + 1")
    wrong = Variant(
        "wrong", "cannot be imported", "retry.py", "DEFAULT_LIMIT: Final = 13", "import nothing_of_this_name"
    )

    assert Workshop().hunt(right, ["little"]).test is None
    with pytest.raises(NotRunnable, match="nothing_of_this_name"):
        Workshop().hunt(wrong, ["little"])


def test_a_test_that_fails_without_a_variant_too_catches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "little", ("tests/mutants/fails_anyway.py",))
    right = Variant("right", "is right", "retry.py", "DEFAULT_LIMIT: Final = 13", "DEFAULT_LIMIT: Final = 12 + 1")
    workshop = Workshop()

    assert workshop.hunt(right, ["little"]).test is None
    assert workshop.doubted == {"tests/mutants/fails_anyway.py::test_that_never_passes"}
