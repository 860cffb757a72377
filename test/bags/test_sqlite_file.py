from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("rosbags", reason="needs rosbags")

from rosbags.rosbag2 import StoragePlugin
from small_bags import START, SmallBag

from litevlm_ros.bags.sqlite_file import SqliteFile
from litevlm_ros.bags.storage import BagError, Channel

TOPIC = "/front/image_raw"
CHANNEL = Channel(TOPIC, "sensor_msgs/msg/Image", "cdr")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return SmallBag().write(tmp_path / "bag", StoragePlugin.SQLITE3, images=60) / "bag.db3"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def times(opened: SqliteFile) -> list[int]:
    return [message.time for message in opened.messages([TOPIC])]


def test_a_sound_file(database: Path, scratch: Path) -> None:
    opened = SqliteFile(database, scratch)
    assert opened.contents.counts[CHANNEL] == 60
    assert opened.contents.start == START
    assert times(opened) == [START + 500_000_000 * index for index in range(60)]
    assert opened.damages == []
    assert sorted(os.listdir(database.parent)) == ["bag.db3", "metadata.yaml"]


def test_a_name_that_is_no_plain_address(database: Path, tmp_path: Path, scratch: Path) -> None:
    odd = tmp_path / "a?b#c%20d.db3"
    shutil.copy(database, odd)
    assert len(times(SqliteFile(odd, scratch))) == 60


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_file_that_was_cut_is_read_as_far_as_it_goes(database: Path, scratch: Path, share: float) -> None:
    database.write_bytes(database.read_bytes()[: int(share * database.stat().st_size)])
    opened = SqliteFile(database, scratch)
    found = times(opened)
    assert opened.damages != []
    assert 60 * share - 15 < len(found) < 60
    assert found == [START + 500_000_000 * index for index in range(len(found))]


def test_damaged_pages_are_left_out(database: Path, scratch: Path) -> None:
    contents = bytearray(database.read_bytes())
    middle = len(contents) // 2 // 4096 * 4096
    contents[middle : middle + 20_480] = b"\xff" * 20_480
    database.write_bytes(contents)
    opened = SqliteFile(database, scratch)
    found = times(opened)
    assert 45 < len(found) < 60
    assert {START, START + 500_000_000 * 59} < set(found)
    assert opened.damages != []


@pytest.mark.parametrize("size", [16, 4096, 8192])
def test_a_file_without_its_topics(database: Path, scratch: Path, size: int) -> None:
    database.write_bytes(database.read_bytes()[:size])
    with pytest.raises(BagError, match="table of topics is damaged or missing"):
        SqliteFile(database, scratch)


def unfinished(database: Path, mode: str) -> Path:
    """Copies the database as a recorder leaves it that was killed: it has deleted all but nine messages in a log."""
    work = database.parent.parent / "work"
    work.mkdir()
    shutil.copy(database, work / "bag.db3")
    connection = sqlite3.connect(work / "bag.db3", isolation_level=None)
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("PRAGMA cache_size=1")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM messages WHERE id > 9")
    if mode == "WAL":
        connection.execute("COMMIT")
    left = Path(shutil.copytree(work, database.parent.parent / "left"))
    connection.close()
    (left / "bag.db3-shm").unlink(missing_ok=True)
    return left / "bag.db3"


def test_what_a_recorder_had_not_written_yet_is_read_from_its_log(database: Path, scratch: Path) -> None:
    left = unfinished(database, "WAL")
    before = {file.name: file.read_bytes() for file in left.parent.iterdir()}
    assert set(before) == {"bag.db3", "bag.db3-wal"}
    opened = SqliteFile(left, scratch)
    assert len(times(opened)) == 3
    assert opened.contents.counts[CHANNEL] == 3
    assert {file.name: file.read_bytes() for file in left.parent.iterdir()} == before


def test_what_a_recorder_had_not_finished_is_taken_back(database: Path, scratch: Path) -> None:
    left = unfinished(database, "DELETE")
    before = {file.name: file.read_bytes() for file in left.parent.iterdir()}
    assert set(before) == {"bag.db3", "bag.db3-journal"}
    assert len(times(SqliteFile(left, scratch))) == 60
    assert {file.name: file.read_bytes() for file in left.parent.iterdir()} == before


def test_no_room_for_the_copy(database: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = unfinished(database, "WAL")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(BagError, match=r"only 0 MB free of .*set TMPDIR"):
        SqliteFile(left, scratch)
