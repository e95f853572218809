"""What is in the wheel that users install."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    # The build backend itself, without a build environment of its own: nothing is downloaded.
    program = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"
    built = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(tmp_path / built.stdout.split()[-1]) as wheel:
        names = set(wheel.namelist())
        [metadata] = [wheel.read(name).decode() for name in names if name.endswith("/METADATA")]
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
    for extra in ("cli", "embedded", "fast", "dev"):
        assert f"Provides-Extra: {extra}" in metadata
