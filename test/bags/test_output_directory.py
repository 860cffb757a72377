from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rosbags", reason="needs rosbags")

from litevlm_ros.bags.output_directory import OutputDirectory
from litevlm_ros.errors import ConfigError


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    bag = tmp_path / "drive"
    bag.mkdir()
    (bag / "metadata.yaml").touch()
    (bag / "drive_0.mcap").touch()
    return bag


def check(path: Path, recording: Path, *, resume: bool = False, captions: int = 1) -> None:
    OutputDirectory(path).check(recording, resume=resume, captions=captions, most_tokens=64)


def test_it_is_made_with_those_above_it_and_removed_if_nothing_is_written(tmp_path: Path, recording: Path) -> None:
    path = tmp_path / "a" / "b"
    check(path, recording)
    assert not (tmp_path / "a").exists()
    with OutputDirectory(path):
        assert path.is_dir()
    assert not (tmp_path / "a").exists()
    with OutputDirectory(path):
        (path / "file").touch()
    assert (path / "file").exists()


def test_an_empty_directory_that_was_there_stays(tmp_path: Path, recording: Path) -> None:
    check(tmp_path, recording / "drive_0.mcap")
    (tmp_path / "out").mkdir()
    with OutputDirectory(tmp_path / "out"):
        pass
    assert (tmp_path / "out").exists()


def a_file(path: Path) -> None:
    path.write_text("mine")


def below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("mine")


def a_link_to_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def a_loop(path: Path) -> None:
    path.symlink_to(path)


def captions_without_a_log(path: Path) -> None:
    (path / "captions").mkdir(parents=True)


def a_link_as_captions(path: Path) -> None:
    path.mkdir()
    (path / "captions").symlink_to("nowhere")


PLACES: list[tuple[Callable[[Path], None], str]] = [
    (a_file, "no directory"),
    (below_a_file, "is no directory"),
    (a_link_to_nowhere, "a link to nowhere"),
    (a_loop, "cannot be used|a link to nowhere"),
    (captions_without_a_log, "captions exists; .*remove it or choose another"),
    (a_link_as_captions, "captions exists"),
]


@pytest.mark.parametrize(("make", "told"), PLACES)
def test_places_that_are_refused_and_not_touched(
    tmp_path: Path, recording: Path, make: Callable[[Path], None], told: str
) -> None:
    path = tmp_path / "above" / "out"
    path.parent.mkdir()
    make(path)
    before = sorted(map(str, tmp_path.rglob("*")))
    with pytest.raises(ConfigError, match=told):
        check(path, recording)
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_foreign_files_where_the_bag_would_be(tmp_path: Path, recording: Path) -> None:
    (tmp_path / "out" / "captions").mkdir(parents=True)
    (tmp_path / "out" / "captions" / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"has not written \(notes\.txt\)"):
        check(tmp_path / "out", recording, resume=True)


def test_the_recording_is_no_place_for_it(tmp_path: Path, recording: Path) -> None:
    (tmp_path / "link").symlink_to(recording)
    for path in (recording, tmp_path / "link", tmp_path / "other" / ".." / "drive"):
        with pytest.raises(ConfigError, match="is the recording itself"):
            check(path, recording)
        with pytest.raises(ConfigError, match="is the recording itself"):
            check(path, recording / "drive_0.mcap")
    for path in (recording / "out", tmp_path / "link" / "a" / "b"):
        with pytest.raises(ConfigError, match="lies inside the recording"):
            check(path, recording)


def test_no_room(tmp_path: Path, recording: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    check(tmp_path / "out", recording, captions=100)
    with pytest.raises(ConfigError, match=r"about 4\.0 MB, but the disk of .* has only 1\.0 MB free; make room"):
        check(tmp_path / "out", recording, captions=1000)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_of_others(tmp_path: Path, recording: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="cannot be written by this user"):
        check(tmp_path / "out", recording)


def test_a_place_that_looks_as_if_it_could_be_written() -> None:
    with pytest.raises(ConfigError, match="/proc/out cannot be written"), OutputDirectory(Path("/proc/out")):
        pass


def test_two_runs_do_not_share_it(tmp_path: Path) -> None:
    with (
        OutputDirectory(tmp_path / "out"),
        pytest.raises(ConfigError, match="another run writes to"),
        OutputDirectory(tmp_path / "out"),
    ):
        pass
    with OutputDirectory(tmp_path / "out"):
        pass
