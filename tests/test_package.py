"""What is in the wheel that users install."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tests.pythons import interpreters
from tests.versions import lower_bounds

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def build(kind: str, folder: Path, root: Path = ROOT) -> Path:
    """The file that the build backend makes, without a build environment of its own: nothing is downloaded."""
    program = f"import sys, hatchling.build; print(hatchling.build.build_{kind}(sys.argv[1]))"
    words = [sys.executable, "-c", program, str(folder)]
    return folder / subprocess.run(words, cwd=root, capture_output=True, text=True, check=True).stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def metadata(wheel_file: Path) -> Message:
    with zipfile.ZipFile(wheel_file) as wheel:
        [text] = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/METADATA")]
    return Parser().parsestr(text)


def test_the_wheel_holds_the_package_and_nothing_else(wheel_file: Path, metadata: Message) -> None:
    with zipfile.ZipFile(wheel_file) as wheel:
        names = set(wheel.namelist())
    package = {name for name in names if ".dist-info/" not in name}
    assert package == {"jobqueue_pytest.py"} | {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "jobqueue").rglob("*")
        if path.is_file() and path.suffix in {".py", ".lua", ".typed"}
    }
    assert {
        "jobqueue/py.typed",
        "jobqueue/storage/redis/interpret/words.lua",
        "jobqueue/storage/redis/read.lua",
    } <= package
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("entry_points.txt") for name in names)
    assert {"cli", "embedded", "fast", "testing", "dev"} == set(metadata.get_all("Provides-Extra", []))


def test_the_distribution_is_jobqueue_py(wheel_file: Path, metadata: Message) -> None:
    assert wheel_file.name.startswith("jobqueue_py-")
    assert metadata["Name"] == "jobqueue-py"
    assert metadata.get_all("Project-URL", []) == [], "there is nothing that could be named yet"
    classifiers = metadata.get_all("Classifier", [])
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} <= set(classifiers)
    assert metadata["Requires-Python"] == ">=3.11"


def test_nothing_keeps_a_newer_version_of_another_package_out(metadata: Message) -> None:
    assert lower_bounds(PROJECT)["redis"] == "5"
    for requirement in metadata.get_all("Requires-Dist", []):
        assert not re.search(r"<|==\s*\d|~=", requirement.partition(";")[0]), requirement
    with pytest.raises(ValueError, match=r"no plain lower bound"):
        lower_bounds({**PROJECT, "dependencies": ["redis>=5,<9"]})


def test_every_pip_install_names_the_distribution() -> None:
    """In what the package prints and what its documents say."""
    files = [ROOT / "README.md", ROOT / "pyproject.toml", ROOT / "jobqueue_pytest.py"]
    for folder, ending in (("docs", "md"), ("jobqueue", "py"), ("examples", "*"), ("benchmarks", "py")):
        files += [path for path in (ROOT / folder).rglob(f"*.{ending}") if path.is_file()]
    extras = "|".join(PROJECT["optional-dependencies"])
    wrong = re.compile(rf"(?<![\w-])jobqueue\[(?:{extras})|pip install [^`&\n]*(?<![\w.-])jobqueue(?![-\w./])")
    for path in files:
        found = wrong.search(path.read_text(errors="replace"))
        assert not found, f"{path}: {found and found[0]}"


def test_the_page_on_the_index_leads_nowhere_else(metadata: Message) -> None:
    """[relative links] The index has the text alone, and none of the files."""
    assert metadata["Description-Content-Type"] == "text/markdown"
    page = str(metadata.get_payload())
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    inline = [child for token in tokens for child in token.children or ()]
    links = [token for token in inline if token.type in ("link_open", "image")]
    targets = [str(token.attrGet("href") or token.attrGet("src")) for token in links]
    assert [target for target in targets if not target.startswith("https://")] == []
    shown = "".join(token.content for token in inline if token.type == "text")
    assert "](" not in shown, "a link that is none"
    assert sum(token.type == "heading_open" and token.tag == "h1" for token in tokens) == 1
    assert sum(token.type == "table_open" for token in tokens) == 2
    assert "deploy (`docs/how-to/deploy.md`)" in page
    named = re.findall(r"\(`((?:docs/|examples/|CHANGELOG)[\w/.-]+)`\)", page)
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_source_distribution_has_what_the_page_names(tmp_path: Path, metadata: Message) -> None:
    """And makes the same wheel: the hook that writes the page is in it."""
    source = build("sdist", tmp_path)
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    [root] = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert (root / "docs/how-to/deploy.md").exists()
    with zipfile.ZipFile(build("wheel", tmp_path, root)) as wheel:
        [text] = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/METADATA")]
    assert Parser().parsestr(text).get_payload() == metadata.get_payload()


def test_the_newest_release_of_each_python_is_found(tmp_path: Path) -> None:
    """With stand-ins that answer as interpreters do, on the path and where pyenv keeps its own."""
    answers = {
        "path/python3.12": "3 12 1 final", "path/python3.10": "3 10 9 final", "path/python3.14": "3 14 0 candidate",
        "root/versions/3.12.7/bin/python3": "3 12 7 final", "root/versions/3.11.2/bin/python3": "3 11 2 final",
    }  # fmt: skip
    for name, answer in answers.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\necho {answer}\n")
        (tmp_path / name).chmod(0o755)
    shim = tmp_path / "path/python3.13"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)

    found = interpreters({"PATH": f"{tmp_path / 'path'}:/nowhere", "PYENV_ROOT": str(tmp_path / "root")})

    assert found == {
        "3.11": tmp_path / "root/versions/3.11.2/bin/python3",
        "3.12": tmp_path / "root/versions/3.12.7/bin/python3",
    }
