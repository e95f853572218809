"""Which folders this user of the system can rely on."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobqueue.embedded_place import NotOurs, flaw_of, others_may_write
from jobqueue.private_folder import find_folder, make_private, open_folder

ME = os.geteuid()
OTHER = 65534 if ME == 0 else 0
AS_ROOT = pytest.mark.skipif(ME != 0, reason="only root can give a file to another user")


def found(mode: int, user: int = ME, group: int = 4711) -> os.stat_result:
    return os.stat_result((stat.S_IFDIR | mode, 1, 1, 1, user, group, 0, 0, 0, 0))


@pytest.fixture
def no_mask() -> Iterator[None]:
    """A mask that leaves every right that is asked for."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o750, 0o500, 0o1700])
def test_what_only_this_user_can_write_to_is_its_own(mode: int) -> None:
    assert flaw_of(found(mode)) is None


@pytest.mark.parametrize("mode", [0o702, 0o722, 0o770, 0o1777, 0o720])
def test_what_others_can_write_to_is_not(mode: int) -> None:
    assert flaw_of(found(mode)) == "can be written by other users"


@pytest.mark.parametrize("mode", [0o700, 0o777])
def test_what_belongs_to_another_user_is_not(mode: int) -> None:
    """Not even for root, and not if it is root's."""
    assert flaw_of(found(mode, user=ME + 1)) == f"belongs to another user of the system (id {ME + 1})"


@pytest.mark.parametrize(
    ("name", "gid", "members", "others"),
    [
        ("me", 4711, [], False),
        ("me", 4711, ["me"], False),
        ("me", 4711, ["me", "you"], True),
        ("staff", 4711, [], True),
        ("me", 1, [], True),
    ],
)
def test_a_group_that_is_this_users_alone_is_no_other(
    monkeypatch: pytest.MonkeyPatch, name: str, gid: int, members: list[str], others: bool
) -> None:
    """Many systems give each user such a group, and a mask that lets it write."""
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_name="me", pw_gid=gid))
    monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_name=name, gr_mem=members))

    assert others_may_write(found(0o775)) is others
    assert others_may_write(found(0o777))


def test_the_way_may_go_through_links_and_sticky_folders_of_this_user(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (tmp_path / "real" / "below").mkdir(parents=True)
    (shared / "link").symlink_to("../real/other/../below")
    (tmp_path / "real" / "other").mkdir()

    assert find_folder(shared / "link" / ".." / "below") == (tmp_path / "real" / "below").resolve()


@pytest.mark.parametrize("mode", [0o777, 0o772, 0o733])
def test_no_way_leads_through_a_folder_where_others_can_replace_what_is_in_it(tmp_path: Path, mode: int) -> None:
    shared = tmp_path / "shared"
    (shared / "mine").mkdir(mode=0o700, parents=True)
    shared.chmod(mode)
    (tmp_path / "link").symlink_to("shared/mine")

    for path in (shared / "mine", shared / "mine" / "new", tmp_path / "link", tmp_path / "link" / ".." / ".." / "x"):
        with pytest.raises(NotOurs, match="shared can be written by other users"):
            find_folder(path, make=True)
    assert list((shared / "mine").iterdir()) == []


@AS_ROOT
@pytest.mark.parametrize("kind", ["folder", "link", "folder that a link leads to"])
def test_no_way_leads_through_what_is_another_users(tmp_path: Path, kind: str) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / "mine").mkdir()
    theirs = tmp_path / "theirs"
    path = theirs
    if kind == "link":
        theirs.symlink_to("mine")
        os.lchown(theirs, OTHER, OTHER)
    else:
        theirs.mkdir()
        os.chown(theirs, OTHER, OTHER)
    if kind == "folder that a link leads to":
        path = tmp_path / "link"
        path.symlink_to("theirs")

    with pytest.raises(NotOurs, match=rf"theirs belongs to another user of the system \(id {OTHER}\)"):
        find_folder(path / "new", make=True)
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.skipif(ME == 0, reason="root's folders are its own")
def test_a_folder_of_root_is_on_the_way_and_no_place_to_work_in() -> None:
    assert find_folder(Path("/usr")) == Path("/usr")
    with pytest.raises(NotOurs, match="it belongs to another user"):
        open_folder(Path("/usr")).__enter__()


def test_links_in_a_circle_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    with pytest.raises(OSError, match="symbolic links"):
        find_folder(tmp_path / "a", make=True)


@pytest.mark.usefixtures("no_mask")
def test_what_is_made_cannot_be_written_by_others_whatever_the_mask(tmp_path: Path) -> None:
    with open_folder(tmp_path / "a" / "b" / "c", make=True):
        pass
    make_private(tmp_path / "d" / "e")

    modes = {str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"a": 0o755, "a/b": 0o755, "a/b/c": 0o700, "d": 0o700, "d/e": 0o700}
    with pytest.raises(FileExistsError):
        make_private(tmp_path / "d" / "e")


def test_without_leave_to_make_it_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
