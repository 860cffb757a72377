from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rosbags", reason="needs rosbags")

from caption_entries import caption_entry, error_entry
from rosbags.rosbag2 import Reader

from litevlm_ros.bags import caption_bag
from litevlm_ros.bags.caption_bag import foreign_files, write_caption_bag
from litevlm_ros.bags.caption_messages import CaptionMessages
from litevlm_ros.errors import OutputError

MESSAGES = CaptionMessages()


def write(directory: Path, *entries: dict[str, Any], storage: str = "mcap") -> None:
    write_caption_bag(directory, entries or [caption_entry(1)], MESSAGES, storage)


def times(directory: Path) -> list[int]:
    with Reader(directory) as reader:
        return [time for connection, time, _ in reader.messages() if connection.topic == "/litevlm/caption"]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_captions_in_the_order_of_recording(tmp_path: Path, storage: str) -> None:
    write(tmp_path / "captions", caption_entry(5), error_entry(4), caption_entry(3), caption_entry(3), storage=storage)
    assert times(tmp_path / "captions") == [3, 3, 5]


def test_a_bag_of_captions_is_replaced_also_by_one_in_another_storage(tmp_path: Path) -> None:
    bag = tmp_path / "captions"
    write(bag)
    write(bag, caption_entry(1), caption_entry(2), storage="sqlite3")
    assert times(bag) == [1, 2]
    assert sorted(os.listdir(bag)) == ["captions.db3", "metadata.yaml"]
    assert os.listdir(tmp_path) == ["captions"]


def test_times_that_the_storage_cannot_hold(tmp_path: Path) -> None:
    write(tmp_path / "captions", caption_entry(-5), caption_entry(2**64 - 1), storage="sqlite3")
    assert times(tmp_path / "captions") == [0, 2**63 - 1]


def notes(bag: Path) -> None:
    bag.mkdir()
    (bag / "notes.txt").write_text("mine")


def notes_beside_ours(bag: Path) -> None:
    write(bag)
    (bag / "notes.txt").write_text("mine")


def empty(bag: Path) -> None:
    bag.mkdir()


def file(bag: Path) -> None:
    bag.write_text("mine")


def link(bag: Path) -> None:
    write(bag.with_name("elsewhere"))
    bag.symlink_to(bag.with_name("elsewhere"))


def dangling(bag: Path) -> None:
    bag.symlink_to(bag.with_name("nowhere"))


def without_our_mark(bag: Path) -> None:
    write(bag)
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("litevlm_ros bag_caption", "somebody else"))


FOREIGN = [notes, notes_beside_ours, empty, file, link, dangling, without_our_mark]


def tree(directory: Path) -> dict[str, Any]:
    return {str(each.relative_to(directory)): each.is_file() and each.read_bytes() for each in directory.rglob("*")}


@pytest.mark.parametrize("make", FOREIGN)
def test_what_is_not_its_own_stays(tmp_path: Path, make: Callable[[Path], None]) -> None:
    bag = tmp_path / "captions"
    make(bag)
    before = tree(tmp_path)
    assert foreign_files(bag)
    with pytest.raises(OutputError, match=r"not written, because .*captions holds what this tool has not written"):
        write(bag)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("make", FOREIGN)
def test_what_appears_during_the_work_stays(
    tmp_path: Path, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = tmp_path / "captions"
    calls: list[Path] = []

    def appearing(directory: Path) -> list[str]:
        found = foreign_files(directory)
        calls.append(directory)
        if len(calls) == 1:
            make(bag)
        return found

    monkeypatch.setattr(caption_bag, "foreign_files", appearing)
    with pytest.raises(OutputError, match="has not written"):
        write(bag)
    expected = tmp_path / "expected"
    expected.mkdir()
    make(expected / "captions")
    assert foreign_files(bag) == foreign_files(expected / "captions")
    assert not list(tmp_path.glob(".captions_*"))


def test_nothing_is_left_of_a_bag_that_could_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = tmp_path / "captions"
    write(bag, caption_entry(7))

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(caption_bag.Writer, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(bag)
    assert os.listdir(tmp_path) == ["captions"]
    assert times(bag) == [7]
