"""What the processes that ``jobqueue run`` starts get, and what they import: no more than they need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from tests.runner.apps import forgers
from tests.runner.test_processes import ROOT
from tests.servers import kinds

CANARY: Final = "s3cr3t"
PROGRAMS: Final = {
    "program": [str(Path(sys.executable).parent / "jobqueue")],
    "module": [sys.executable, "-m", "jobqueue"],
}
SHADOWS: Final = ("attr", "attrs", "click", "hiredis", "msgspec", "redis", "rich", "uvloop")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A current directory in which somebody has put what we import."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in SHADOWS:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'ran')!r}, 'a').write({name!r})\nraise ImportError")
    return folder


def environment(**more: str) -> dict[str, str]:
    left_out = ("JOBQUEUE_URL", "PYTHONPATH", "PYTHONSAFEPATH")
    return {**{name: value for name, value in os.environ.items() if name not in left_out}, **more}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("how", "processes", "storage"),
    [("program", "2", "server"), ("module", "1", "embedded")],
)
def test_no_process_gets_a_descriptor_a_password_or_the_current_directory(
    running_servers: Any, hostile: Path, tmp_path: Path, how: str, processes: str, storage: str
) -> None:
    server = running_servers(kinds()[0])
    server.flush()
    url = f"{server.url}{'&' if '?' in server.url else '?'}client_name={CANARY}"
    if storage == "embedded":
        url = f"embedded://{tmp_path}/{CANARY}"
    file = tmp_path / "url"
    file.touch(0o600)
    file.write_text(f"{url}\n")
    if (
        how == "program"
    ):  # which Python looks for in the current directory where it is told to run a module of this name
        (hostile / "jobqueue.py").write_text((hostile / "click.py").read_text())
    told: dict[str, Any] = {}
    forgers.jobs.relocate(url=url)
    with forgers.jobs:
        forgers.thread_tells.enqueue(str(tmp_path))
        forgers.process_tells.enqueue(str(tmp_path))
        done = subprocess.run(
            [
                *PROGRAMS[how], "run", "tests.runner.apps.forgers:jobs", "--app-dir", str(ROOT), "--burst",
                "--processes", processes, "--job-processes", "1", "--url-file", str(file),
            ],
            cwd=hostile, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (hostile / "ran").exists(), "what lies in the current directory was imported"
    for name in ("thread", "process"):
        told[name] = msgspec.json.decode((tmp_path / name).read_bytes())
        assert told[name]["inheritable"] == []
        assert CANARY not in " ".join(told[name]["words"]).replace(str(file), "")
        assert CANARY not in str(told[name]["environment"])
        assert str(hostile) not in told[name]["path"]
        assert "" not in told[name]["path"]
    assert told["thread"]["path"][0] == str(ROOT)
    assert told["process"]["path"] == told["thread"]["path"]


@pytest.mark.parametrize("how", PROGRAMS)
def test_the_path_is_the_folder_that_was_named_and_pythonpath(hostile: Path, tmp_path: Path, how: str) -> None:
    """However the command line was started, and the current directory only if it is what was named."""
    app, extra = tmp_path / "app", tmp_path / "extra"
    for folder in (app, extra, hostile):
        folder.mkdir(exist_ok=True)
        (folder / "target.py").write_text("import sys; print(*sys.path, sep='\\n'); sys.exit()")

    def path(*words: str, **more: str) -> list[str]:
        done = subprocess.run(
            [*PROGRAMS[how], "stats", "target:jobs", *words], cwd=hostile, env=environment(**more), capture_output=True,
            text=True, timeout=60, check=True,
        )  # fmt: skip
        return [folder for folder in done.stdout.splitlines() if folder.startswith(str(tmp_path))]

    assert path("--app-dir", str(app), PYTHONPATH=str(extra)) == [str(app), str(extra)]
    assert path(PYTHONSAFEPATH="1") == [str(hostile)], "the default of --app-dir"
    assert not (hostile / "ran").exists(), "the packages of the command line itself are not looked for there"
