from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from litevlm_ros.runtime.tensorrt.engine_files import distrust


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    directory = tmp_path / "models"
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    file = directory / "text_decoder_fp16.engine"
    file.touch()
    file.chmod(0o644)
    return file


def test_what_only_this_user_can_write_is_trusted(engine: Path) -> None:
    assert distrust(engine) is None


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


def test_what_another_user_owns_is_not_trusted(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    if engine.stat().st_uid == 0:  # root's files serve everyone
        if os.getuid() != 0:
            pytest.skip("needs root to give files away")
        os.chown(engine, 12345, -1)
    reason = distrust(engine)
    assert reason is not None
    assert "belongs to" in reason
    assert "copy the model directory" in reason


def test_links_are_followed_to_where_the_engine_is(engine: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    link = other / engine.name
    link.symlink_to(engine)
    assert distrust(link) is None
    engine.parent.chmod(0o777)
    assert str(engine.parent) in (distrust(link) or "")
    engine.parent.chmod(0o755)
    other.chmod(0o777)
    assert str(other) in (distrust(link) or ""), "others could point the link elsewhere"
