from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="needs rosbags")

from rosbags.rosbag2 import CompressionMode, StoragePlugin
from rosbags.rosbag2.storage_mcap import zstd
from small_bags import START, SmallBag

from litevlm_ros.bags.recording import Recording
from litevlm_ros.bags.storage import BagError

TOPIC = "/front/image_raw"


def times(recording: Recording) -> list[int]:
    return [message.time for message in recording.messages([TOPIC])]


def part(directory: Path, name: str, start: int, storage: StoragePlugin, count: int = 3) -> Path:
    """Writes one storage file of a recording, with images from `start` seconds on."""
    small = SmallBag()
    times = [START + (start + index) * 10**9 for index in range(count)]
    bag = small.write_messages(
        directory / f"part{start}", [(TOPIC, time, small.raw(time, 0)) for time in times], storage
    )
    (file,) = (file for file in bag.iterdir() if file.name != "metadata.yaml")
    moved = directory / name
    file.rename(moved)
    shutil.rmtree(bag)
    return moved


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_one_file_alone(tmp_path: Path, storage: StoragePlugin) -> None:
    file = part(tmp_path, "any name", 0, storage)
    with Recording(file) as recording:
        assert list(recording.counts.values()) == [3]
        assert recording.seconds == 2
        assert len(times(recording)) == 3
        assert recording.notes == recording.damages == []
    assert os.listdir(tmp_path) == ["any name"]


def test_several_files_without_metadata_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    part(tmp_path, "drive_10.mcap", 20, StoragePlugin.MCAP)
    part(tmp_path, "drive_2.db3", 10, StoragePlugin.SQLITE3)
    part(tmp_path, "drive_0.mcap", 0, StoragePlugin.MCAP)
    (tmp_path / "notes.txt").touch()
    with Recording(tmp_path) as recording:
        assert [(time - START) // 10**9 for time in times(recording)] == [0, 1, 2, 10, 11, 12, 20, 21, 22]
        assert "it is read as drive_0.mcap, drive_2.db3, drive_10.mcap, in this order" in recording.notes[0]
        assert list(recording.counts.values()) == [9]


def test_one_of_several_files_is_broken(tmp_path: Path) -> None:
    first, second = (
        part(tmp_path, "a_0.mcap", 0, StoragePlugin.MCAP),
        part(tmp_path, "a_1.mcap", 10, StoragePlugin.MCAP),
    )
    part(tmp_path, "a_2.mcap", 20, StoragePlugin.MCAP)
    first.write_bytes(b"")
    second.write_bytes(second.read_bytes()[:4000])
    with Recording(tmp_path) as recording:
        assert [(time - START) // 10**9 for time in times(recording)] == [10, 20, 21, 22]
        assert "a_0.mcap is empty" in recording.damages[0]
        assert recording.damages[1].startswith("a_1.mcap: it ends at byte 4000")


def test_files_that_metadata_lists_and_others(tmp_path: Path) -> None:
    bag = SmallBag().write(tmp_path / "bag", StoragePlugin.MCAP)
    part(bag, "bag_1.mcap", 100, StoragePlugin.MCAP)
    with Recording(bag) as recording:
        assert len(times(recording)) == 4
        assert "does not list bag_1.mcap" in recording.notes[0]
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("- bag.mcap", "- ../elsewhere/bag.mcap\n  - lost_9.mcap"))
    with Recording(bag) as recording:
        assert len(times(recording)) == 4
        assert recording.damages == [f"{bag / 'lost_9.mcap'} is missing"]
    (bag / "bag.mcap").unlink()
    with pytest.raises(
        BagError, match=r"no file of .*bag can be read: .*bag\.mcap is missing; .*lost_9\.mcap is missing"
    ):
        Recording(bag).__enter__()


@pytest.mark.parametrize(
    "metadata", ["", "rosbag2_bagfile_information:\n  version: 99\n", "a: [", "\0", "- 1", "a: *b"]
)
def test_broken_metadata_is_told_and_not_needed(tmp_path: Path, metadata: str) -> None:
    path = SmallBag().write(tmp_path / "bag", StoragePlugin.MCAP)
    (path / "metadata.yaml").write_text(metadata)
    with Recording(path) as recording:
        assert len(times(recording)) == 4
        assert "metadata.yaml cannot be read" in recording.notes[0]
    (path / "bag.mcap").unlink()
    with pytest.raises(BagError, match="and no storage file is beside it"):
        Recording(path).__enter__()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("message_count: 4", "message_count: .inf"),
        ("name: /front/image_raw", "name: [1]"),
        ("- bag.mcap", "- 5"),
        ("name: /front/image_raw", "name: 5"),
        ("relative_file_paths:\n  - bag.mcap", "relative_file_paths: []"),
        ("- bag.mcap", "- bag.mcap\n  - bag.mcap"),
    ],
)
def test_metadata_with_wrong_values(tmp_path: Path, before: str, after: str) -> None:
    path = SmallBag().write(tmp_path / "bag", StoragePlugin.MCAP)
    metadata = path / "metadata.yaml"
    assert before in metadata.read_text()
    metadata.write_text(metadata.read_text().replace(before, after))
    with Recording(path) as recording:
        assert len(times(recording)) == 4


def test_a_file_that_was_being_compressed_is_read_once(tmp_path: Path) -> None:
    file = part(tmp_path, "a_0.mcap", 0, StoragePlugin.MCAP)
    (tmp_path / "a_0.mcap.zstd").write_bytes(zstd.compress(file.read_bytes())[:100])
    with Recording(tmp_path) as recording:
        assert len(times(recording)) == 3
        assert recording.damages == []


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_a_compressed_file_without_metadata(tmp_path: Path, storage: StoragePlugin, share: float) -> None:
    bag = SmallBag().write(tmp_path / "bag", storage, images=400, compression=CompressionMode.FILE)
    (file,) = bag.glob("*.zstd")
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    (bag / "metadata.yaml").unlink()
    with Recording(bag) as recording:
        found = times(recording)
        assert bool(recording.damages) == (share < 1)
    assert found == [START + 500_000_000 * index for index in range(len(found))]
    assert len(found) == 400 if share == 1 else 0 < len(found) < 400
    assert os.listdir(bag) == [file.name]


def test_compressed_messages_without_metadata(tmp_path: Path) -> None:
    bag = SmallBag().write(tmp_path / "bag", StoragePlugin.SQLITE3, compression=CompressionMode.MESSAGE)
    with Recording(bag / "bag.db3") as recording:
        assert {message.data[:2] for message in recording.messages([TOPIC])} == {b"\0\1"}


def test_no_room_to_unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.mcap.zstd"
    file.write_bytes(zstd.compress(b"x" * 100))

    def full(packed: Path, unpacked: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("litevlm_ros.bags.recording.unpack_file", full)
    with pytest.raises(BagError, match=r"cannot be unpacked in .*: No space left on device; set TMPDIR"):
        Recording(file).__enter__()


@pytest.mark.parametrize(
    ("name", "contents", "told"),
    [
        ("a.mcap", b"", r"a\.mcap is empty"),
        ("a.db3", b"\0" * 100, "is no recording: it begins neither as MCAP nor as sqlite3"),
        ("a.mcap", b"hello", "is no recording"),
        (
            "my drive.bag",
            b"#ROSBAG V2.0\n",
            "`rosbags-convert --src '.*my drive.bag' --dst '.*my drive_ros2'`, and caption",
        ),
    ],
)
def test_files_that_are_no_recordings(tmp_path: Path, name: str, contents: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(BagError, match=told):
        Recording(tmp_path / name).__enter__()
    if name.endswith(".bag"):
        with pytest.raises(BagError, match=told):
            Recording(tmp_path).__enter__()


def test_directories_that_are_no_recordings(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="does not exist"):
        Recording(tmp_path / "nowhere").__enter__()
    with pytest.raises(BagError, match=r"is no bag: it has neither metadata\.yaml nor files that end in \.mcap"):
        Recording(tmp_path).__enter__()
    SmallBag().write(tmp_path / "drive", StoragePlugin.MCAP)
    with pytest.raises(BagError, match="holds some: name one of drive"):
        Recording(tmp_path).__enter__()
    with pytest.raises(BagError, match="neither a file nor a directory"):
        Recording(Path("/dev/null")).__enter__()


def test_what_is_unpacked_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = SmallBag().write(tmp_path / "bag", StoragePlugin.MCAP, compression=CompressionMode.FILE)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    with Recording(bag) as recording:
        assert len(times(recording)) == 4
    assert os.listdir(tmp_path / "scratch") == []
    (tmp_path / "broken.mcap.zstd").write_bytes(zstd.compress(b"nothing"))
    with pytest.raises(BagError):
        Recording(tmp_path / "broken.mcap.zstd").__enter__()
    assert os.listdir(tmp_path / "scratch") == []
