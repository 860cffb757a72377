from __future__ import annotations

import grp
import os
import pwd
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from litevlm_ros.trust import distrust


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    directory = tmp_path / "models"
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    file = directory / "text_decoder_fp16.engine"
    file.touch()
    file.chmod(0o644)
    return file


def directory(path: Path, mode: int) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path


def test_what_only_this_user_can_write_is_trusted(engine: Path) -> None:
    assert distrust(engine) is None
    assert distrust(engine.parent) is None


@pytest.mark.parametrize("place", ["file", "directory", "above"])
def test_what_everyone_can_write_is_not(engine: Path, place: str) -> None:
    path = {"file": engine, "directory": engine.parent, "above": engine.parent.parent}[place]
    path.chmod(0o777)
    reason = distrust(engine)
    assert reason is not None
    assert f"{path} can be written by other users" in reason
    assert f"`chmod go-w {path}`" in reason


def test_a_directory_like_tmp_may_lie_above_but_not_hold_the_engine(engine: Path) -> None:
    engine.parent.parent.chmod(0o1777)
    assert distrust(engine) is None
    engine.parent.chmod(0o1777)
    assert "can be written" in (distrust(engine) or "")


def test_a_group_counts_as_others_unless_it_is_the_users_own(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    engine.chmod(0o664)
    for name, members, trusted in ((me, [], True), (me, ["guest"], False), ("users", [], False)):
        group = SimpleNamespace(gr_name=name, gr_mem=members)
        monkeypatch.setattr(grp, "getgrgid", lambda number, group=group: group)
        assert (distrust(engine) is None) == trusted

    def unknown(number: int) -> Any:
        raise KeyError(number)

    monkeypatch.setattr(grp, "getgrgid", unknown)
    assert distrust(engine) is not None


def test_further_users_in_an_access_list_count_as_others(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.chmod(0o664)  # with an access list, the group's bits are the most that its entries may do
    monkeypatch.setattr(os, "listxattr", lambda path: ["system.posix_acl_access"] if path == engine else [])
    assert f"{engine} can be written by other users" in (distrust(engine) or "")


def test_what_another_user_owns_is_not_trusted(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    if engine.stat().st_uid == 0:  # root's files serve everyone
        if os.getuid() != 0:
            pytest.skip("needs root to give files away")
        os.chown(engine, 12345, -1)
    reason = distrust(engine)
    assert reason is not None
    assert "belongs to" in reason
    assert "in a container: `--user 12345`" in reason
    assert "copy the model directory" in reason


@pytest.mark.parametrize("how", ["file", "directory", "above", "chain", "relative", "through a parent"])
def test_every_link_on_the_way_is_looked_at(engine: Path, tmp_path: Path, how: str) -> None:
    """Who can write the directory of a link can point it at an engine of another user's making."""
    shared = directory(tmp_path / "shared", 0o755)
    target = {"file": engine, "above": engine.parent.parent}.get(how, engine.parent)
    link = shared / "link"
    link.symlink_to(os.path.relpath(target, shared) if how == "relative" else target)
    rest = engine.relative_to(target)
    start = link
    if how == "chain":
        home = directory(tmp_path / "home", 0o755)
        start = home / "mine"
        start.symlink_to(link)
    if how == "through a parent":
        rest = Path("..") / engine.parent.name / rest
    path = start / rest
    assert distrust(path) is None
    shared.chmod(0o777)
    assert f"{shared} can be written by other users" in (distrust(path) or "")
    shared.chmod(0o755)
    engine.parent.chmod(0o777)
    assert f"{engine.parent} can be written" in (distrust(path) or ""), "the target's directories count too"


def test_a_link_in_a_directory_like_tmp(engine: Path, tmp_path: Path) -> None:
    shared = directory(tmp_path / "shared", 0o1777)
    (shared / "models").symlink_to(engine.parent)
    assert distrust(shared / "models" / engine.name) is None, "only its owner can replace it"
    (shared / engine.name).symlink_to(engine)
    assert "can be written" in (distrust(shared / engine.name) or ""), "it stands for the engine itself"
    (shared / "here").symlink_to(".")
    (shared / "file.engine").touch()
    assert "can be written" in (distrust(shared / "here" / "file.engine") or "")
    if os.getuid() == 0:
        os.chown(shared / "models", 12345, -1, follow_symlinks=False)
        assert f"{shared / 'models'} belongs to user 12345" in (distrust(shared / "models" / engine.name) or "")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match=r"[Tt]oo many"):
        distrust(tmp_path / "a" / "x.engine")


def test_it_looks_where_the_system_looks(tmp_path: Path) -> None:
    """Both come to the same file, however links and parents are mixed."""
    inner = tmp_path / "one" / "two"
    inner.mkdir(parents=True)
    (tmp_path / "link").symlink_to(inner)
    (tmp_path / "one" / "x.engine").write_text("the system's")
    path = tmp_path / "link" / ".." / "x.engine"
    assert subprocess.run(["cat", str(path)], capture_output=True, text=True).stdout == "the system's"
    assert distrust(path) is None
    (tmp_path / "one" / "x.engine").chmod(0o666)
    assert f"{tmp_path / 'one' / 'x.engine'} can be written" in (distrust(path) or "")
