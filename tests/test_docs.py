"""The documents are true: their code runs, their tables say what the code says, their links lead somewhere.

The python blocks of a document run in order, as one program. A block whose first line is a comment naming a file,
``# shop/mail.py``, becomes that file, which later blocks import; in one named ``test_….py`` every test function is run.
A document with a ``# pytest.ini`` has its test files run by pytest instead, in memory and on an embedded server.
What stands in a block of the language ``output`` is printed, word for word.
Where a document says ``redis://localhost:6379/0``, the program finds a real server that belongs to this test.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final, get_args

import attrs
import pytest
from sybil import Example
from sybil.document import Document
from sybil.parsers.markdown import CodeBlockParser

import jobqueue
import jobqueue.testing
from jobqueue import JobQueue, JobRecord, Runner, errors
from jobqueue.lifecycle import MOVES
from jobqueue.options import EnqueueOptions
from jobqueue.storage.ops import Place
from jobqueue.storage.redis.faults import ANSWERS
from jobqueue.testing import strategies
from tests.conftest import MakeServer

ROOT: Final = Path(__file__).parents[1]
DOCUMENTS: Final = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
PLACEHOLDER: Final = "redis://localhost:6379/0"
FILE: Final = re.compile(r"# ([\w./]+\.py)(\n|$)")
SETTINGS: Final = "# pytest.ini\n"


def name_of(path: Path) -> str:
    """The path of a document from the root."""
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of a document in one language."""
    found: list[str] = []

    def collect(example: Example) -> None:
        found.append(str(example.parsed))

    document = Document.parse(str(path), CodeBlockParser(language=language, evaluator=collect))
    for example in document.examples():
        example.evaluate()
    return found


@attrs.define
class Program:
    """What the blocks of one document build: files in a folder, and a namespace for what is not in a file."""

    folder: Path
    document: str
    names: dict[str, Any] = attrs.field(factory=dict)
    modules: set[str] = attrs.field(factory=set)
    queues: list[JobQueue] = attrs.field(factory=list)

    def configure(self, settings: str) -> None:
        """Let pytest run the test files, with these settings."""
        (self.folder / "pytest.ini").write_text(settings)

    def run(self, source: str, number: int) -> None:
        """Run one block."""
        named = FILE.match(source)
        if named:
            self._write(named[1], source)
        else:
            before = set(self.names)
            exec(compile(source, f"{self.document} block {number}", "exec"), self.names)
            self._run_tests({name: value for name, value in self.names.items() if name not in before})
        # Looked for after every block: the next one may use the name for another.
        for names in (self.names, *(vars(sys.modules[name]) for name in self.modules if name in sys.modules)):
            self.queues.extend(value for value in names.values() if isinstance(value, JobQueue))

    def _write(self, name: str, source: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        if path.name.startswith("test_") and (self.folder / "pytest.ini").exists():
            for url in ("", "--jobqueue-url=embedded://"):
                command = [sys.executable, "-m", "pytest", "-q", "-p", "no:valkey", str(path), *([url] if url else [])]
                ran = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
                assert ran.returncode == 0, ran.stdout + ran.stderr
            return
        # A folder `tests` would be found in this very repository: what is in one is imported by its name alone.
        parts = name.removeprefix("tests/").removesuffix(".py").split("/")
        sys.path.insert(0, str(path.parent if name.startswith("tests/") else self.folder))
        try:
            importlib.invalidate_caches()
            for length in range(1, len(parts) + 1):
                self.modules.add(".".join(parts[:length]))
                sys.modules.pop(".".join(parts[:length]), None)
            self._run_tests(vars(importlib.import_module(".".join(parts))))
        finally:
            sys.path.pop(0)

    def _run_tests(self, names: dict[str, Any]) -> None:
        for name, value in list(names.items()):
            if name.startswith("test_") and inspect.isfunction(value):
                if inspect.iscoroutinefunction(value):
                    asyncio.run(value())
                else:
                    value()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Program]:
    """A folder that is on the path, and nothing left of it afterwards."""
    made = Program(tmp_path, request.node.callspec.id)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBQUEUE_URL", "memory://")  # removed again, whatever a document sets it to
    monkeypatch.delenv("JOBQUEUE_URL")
    # Blocks that are not in a file are one, for `module.qualname` and for the resolution of annotations.
    main = ModuleType("document")
    monkeypatch.setitem(sys.modules, "document", main)
    made.names = vars(main)
    yield made
    for queue in made.queues:
        queue.close()
    for name in made.modules:
        sys.modules.pop(name, None)


WITH_CODE: Final = [path for path in DOCUMENTS if "```python" in path.read_text()]


@pytest.mark.parametrize("path", WITH_CODE, ids=name_of)
def test_the_code_of_the_document_runs(
    path: Path, program: Program, own_server: MakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = blocks(path, "python")
    url = own_server().url if any(PLACEHOLDER in source for source in sources) else ""
    for settings in blocks(path, "ini"):
        if settings.startswith(SETTINGS):
            program.configure(settings)
    for number, source in enumerate(sources, 1):
        program.run(source.replace(PLACEHOLDER, url), number)
    printed = capsys.readouterr().out
    assert [output for output in blocks(path, "output") if output not in printed] == []


def test_there_is_code_that_runs() -> None:
    names = {name_of(path) for path in WITH_CODE}
    assert {"README.md", "docs/tutorial/first-queue.md", "docs/how-to/write-a-storage.md"} <= names
    ours = [path for path in WITH_CODE if any(block.startswith(SETTINGS) for block in blocks(path, "ini"))]
    assert len(ours) >= 2, "no document shows the plugin"


# -------------------------------------------------------------------------------------------------------------- links

LINK: Final = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def anchors(path: Path) -> set[str]:
    """What one can link to inside a document, as GitHub names it."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text()):
        target, _, anchor = link.partition("#")
        if ":" in target:
            continue
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), f"{link}: there is no such file"
        assert found.is_relative_to(ROOT), f"{link}: outside of the repository"
        if anchor:
            assert anchor in anchors(found), f"{link}: there is no such heading"


def test_every_document_is_linked() -> None:
    linked = {
        (path.parent / link.partition("#")[0]).resolve()
        for path in DOCUMENTS
        for link in LINK.findall(path.read_text())
    }
    lonely = [name_of(path) for path in DOCUMENTS if path not in linked and path.name != "README.md"]
    assert lonely == []


# ------------------------------------------------------------------------------------------------------------- tables


def rows(path: Path, *, below: str = "") -> list[list[str]]:
    """The cells of all table rows of a document, below a heading; code marks removed."""
    text = path.read_text()
    if below:
        text = text.partition(f"\n{below}\n")[2]
        assert text, f"{path}: no heading {below!r}"
        text = re.split(r"^#", text, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in text.splitlines() if line.startswith("|") and not set(line) <= set("|-: ")]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_table_of_answers_is_that_of_the_code() -> None:
    _, *table = rows(ROOT / "docs/reference/errors.md", below="## What passes")
    assert {row[0]: row[1] == "yes" for row in table} == {code: answer.passes for code, answer in ANSWERS.items()}


def test_the_table_of_moves_is_that_of_the_code() -> None:
    page = ROOT / "docs/explanation/job-lifecycle.md"
    written = [tuple(row[:3]) for row in rows(page) if len(row) == 4]
    assert written[0] == ("step", "from", "to")
    moves = {(step, source or "–", target or "–") for step, pairs in MOVES.items() for source, target in pairs}
    assert set(written[1:]) == moves
    assert len(written) - 1 == len(moves)
    for place in get_args(Place):
        assert f"* **{place}** — " in page.read_text()


PYTHON: Final = ROOT / "docs/reference/python.md"


def parameters(function: Callable[..., object]) -> set[str]:
    """The names of the parameters of a callable, without self."""
    return set(inspect.signature(function).parameters) - {"self"}


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("## JobQueue", parameters(JobQueue)),
        ("## Runner", parameters(Runner)),
        ("### Options of a job", set(EnqueueOptions.__annotations__)),
        ("## JobRecord", {name for name in dir(JobRecord) if name[0] != "_"} - {"nonce", "stored", "cursor"}),
        ("### RetryPolicy", parameters(jobqueue.RetryPolicy)),
        ("### RunnerStatus", {field.name for field in attrs.fields(jobqueue.RunnerStatus)}),
        ("### Context", {name for name in dir(jobqueue.Context) if not name.startswith("_")}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_reference_names_every_argument(heading: str, names: set[str]) -> None:
    header, *table = rows(PYTHON, below=heading)
    assert {row[0] for row in table} == names, header


def test_the_reference_names_everything_of_the_testing_kit() -> None:
    text = (ROOT / "docs/reference/testing.md").read_text()
    wanted = {*jobqueue.testing.__all__, *(f"strategies.{name}" for name in strategies.__all__)}
    wanted |= {name for name in dir(jobqueue.testing.Testing) if not name.startswith("_")}
    wanted |= parameters(jobqueue.testing.check_job) | parameters(jobqueue.testing.check_storage)
    assert {name for name in wanted if not re.search(rf"`([a-z]+\(?.*)?\b{re.escape(name)}\b", text)} == set()


def test_the_reference_names_everything_public() -> None:
    text = PYTHON.read_text() + (ROOT / "docs/reference/errors.md").read_text()
    missing = [name for name in jobqueue.__all__ if f"`{name}" not in text and not name.startswith("__")]
    assert missing == []
    methods = [name for name in dir(JobQueue) if not name.startswith("_") and callable(getattr(JobQueue, name))]
    twins = {name for name in methods if name.startswith("a") and name[1:] in methods}
    inner = {"call_of"}  # what the methods of kinds do
    wanted = [name for name in methods if name not in twins | inner]
    assert [name for name in wanted if not re.search(rf"`(@?jobs\.)?{name}\b", text)] == []


def test_the_page_of_errors_has_them_all() -> None:
    [_, *table] = rows(ROOT / "docs/reference/errors.md", below="## Kinds")
    assert {row[0] for row in table} == set(errors.__all__)
    for name, parents, *_ in table:
        bases = [base.__name__ for base in getattr(errors, name).__bases__]
        assert parents.split(", ") == bases, name


# -------------------------------------------------------------------------------------------------------- command line


def shell_words(path: Path) -> Iterator[list[str]]:
    """The words of every call of the jobqueue command in a document."""
    units = [block for block in blocks(path, "ini") if not block.startswith(SETTINGS)]
    for block in blocks(path, "console") + units:
        for line in block.splitlines():
            for part in line.split("&&"):
                found = re.search(r"(?:^|[\s/=])jobqueue (?!\[)(.+)$", part)
                if found and "pip install" not in part:
                    yield found[1].split()


def test_the_documents_have_commands_and_links_to_be_checked() -> None:
    """What finds nothing to check passes."""
    texts = [path.read_text() for path in DOCUMENTS]
    assert sum(1 for path in DOCUMENTS for _ in shell_words(path)) > 10
    assert sum(len(LINK.findall(text)) for text in texts) > 100


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_of_the_documents_exist(path: Path) -> None:
    from jobqueue.cli.app import cli

    for words in shell_words(path):
        command = cli.commands.get(words[0])
        assert command is not None, f"there is no command {words[0]!r}"
        known = {option for parameter in command.params for option in parameter.opts}
        for word in words[1:]:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, f"{words[0]} has no option {word}"


def test_the_reference_names_every_command_and_option() -> None:
    from jobqueue.cli.app import cli

    page = ROOT / "docs/reference/cli.md"
    for name, command in cli.commands.items():
        table = rows(page, below=f"## {name}")
        shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
        options = {max(parameter.opts, key=len) for parameter in shown if parameter.opts[0].startswith("-")}
        shared = {"--json", "--url", "--url-file", "--namespace", "--help", *(["--app-dir"] if name != "run" else [])}
        assert {row[0].split()[0] for row in table if row[0].startswith("--")} == options - shared, name


def test_ci_runs_the_command_of_the_readme() -> None:
    """What a newcomer types is what is checked: .ci/run takes the line out of the README."""
    [command] = [line for line in "\n".join(blocks(ROOT / "README.md", "console")).splitlines() if "pytest" in line]
    assert command.startswith("python3 -m venv .venv && ")
    assert "README.md" in (ROOT / ".ci/run").read_text()
