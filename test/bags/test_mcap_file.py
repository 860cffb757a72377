from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="needs rosbags")

from rosbags.rosbag2 import StoragePlugin
from small_bags import SmallBag
from small_mcap import write_mcap

from litevlm_ros.bags.mcap_file import McapFile
from litevlm_ros.bags.storage import Channel, Message

TOPIC = "/front"
CHANNEL = Channel(TOPIC, "sensor_msgs/msg/Image", "cdr")


def messages(count: int) -> Iterator[tuple[str, str, int, bytes]]:
    for index in range(count):
        yield TOPIC, CHANNEL.kind, 1000 + index, bytes([0, 1, 0, 0, index]) * 100


def read(file: Path) -> tuple[list[Message], list[str]]:
    opened = McapFile(file)
    found = list(opened.messages([TOPIC]))
    return found, opened.damages


@pytest.mark.parametrize("compression", ["", "zstd", "lz4", None])
def test_files_without_an_index(tmp_path: Path, compression: str | None) -> None:
    file = write_mcap(tmp_path / "a.mcap", messages(10), compression=compression)
    opened = McapFile(file)
    assert opened.contents.counts == {CHANNEL: 10}
    assert (opened.contents.start, opened.contents.end) == (1000, 1009)
    found, damages = read(file)
    assert found == [Message(CHANNEL, time, data) for _, _, time, data in messages(10)]
    assert damages == []


@pytest.mark.parametrize("compression", ["", "zstd", "lz4", None])
def test_a_file_that_was_cut_anywhere_is_read_as_far_as_it_goes(tmp_path: Path, compression: str | None) -> None:
    whole = write_mcap(tmp_path / "a.mcap", messages(10), compression=compression).read_bytes()
    expected = [Message(CHANNEL, time, data) for _, _, time, data in messages(10)]
    most = 0
    for size in range(8, len(whole) - 1, 7):
        (tmp_path / "cut.mcap").write_bytes(whole[:size])
        found, damages = read(tmp_path / "cut.mcap")
        assert found == expected[: len(found)]
        assert len(found) >= most
        assert damages != []
        most = len(found)
    assert most == 10


def test_the_messages_at_the_beginning_of_a_cut_chunk(tmp_path: Path) -> None:
    whole = write_mcap(tmp_path / "a.mcap", messages(10), per_chunk=10).read_bytes()
    (tmp_path / "cut.mcap").write_bytes(whole[: len(whole) // 2])
    found, damages = read(tmp_path / "cut.mcap")
    assert len(found) == 4
    assert damages == [f"it ends at byte {len(whole) // 2}, in the middle of a record"]


def test_a_damaged_chunk_is_left_out_and_those_behind_it_are_read(tmp_path: Path) -> None:
    whole = bytearray(write_mcap(tmp_path / "a.mcap", messages(12)).read_bytes())
    whole[len(whole) // 2] ^= 1
    (tmp_path / "a.mcap").write_bytes(whole)
    found, damages = read(tmp_path / "a.mcap")
    assert [message.time for message in found] == [1000, 1001, 1002, 1003, 1008, 1009, 1010, 1011]
    assert len(damages) == 1
    assert "chunk at byte" in damages[0]
    assert damages[0].endswith("is damaged")


def test_a_damaged_chunk_of_a_file_with_an_index(tmp_path: Path) -> None:
    bag = SmallBag().write(tmp_path / "bag", StoragePlugin.MCAP, images=1200)
    file = bag / "bag.mcap"
    contents = bytearray(file.read_bytes())
    at = (
        8 + 9 + int.from_bytes(contents[9:17], "little")
    )  # the first chunk, which holds the channels, is behind a header
    assert McapFile(file).contents.counts[Channel("/front/image_raw", CHANNEL.kind, "cdr")] == 1200
    contents[at + 9 + 24] ^= 0xFF  # the checksum, which this writer leaves out, and which fits nothing now
    file.write_bytes(contents)
    opened = McapFile(file)
    found = list(opened.messages(["/front/image_raw"]))
    assert 0 < len(found) < 1200
    assert len({message.time for message in found}) == len(found)
    assert any("chunk at byte" in damage for damage in opened.damages)


def test_garbage_ends_the_reading(tmp_path: Path) -> None:
    whole = write_mcap(tmp_path / "a.mcap", messages(3), compression=None, ends=False).read_bytes()
    (tmp_path / "a.mcap").write_bytes(whole + bytes(500))
    found, damages = read(tmp_path / "a.mcap")
    assert len(found) == 3
    assert damages == [f"it is damaged from byte {len(whole)} on"]


def test_lengths_that_lie(tmp_path: Path) -> None:
    whole = write_mcap(tmp_path / "a.mcap", messages(3), compression=None, ends=False).read_bytes()
    (tmp_path / "a.mcap").write_bytes(whole + b"\x06" + b"\xff" * 8 + b"rest")
    assert len(read(tmp_path / "a.mcap")[0]) == 3


def test_other_profiles_and_compressions(tmp_path: Path) -> None:
    assert len(read(write_mcap(tmp_path / "a.mcap", messages(3), profile=""))[0]) == 3
    found, damages = read(write_mcap(tmp_path / "b.mcap", messages(3), compression="unknown"))
    assert found == []
    assert "unknown compression 'unknown'" in damages[0]
