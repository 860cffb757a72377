from __future__ import annotations

import json
import os
import resource
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from caption_entries import ORIGIN, caption_entry, error_entry

from litevlm_ros.bags.caption_log import CaptionLog
from litevlm_ros.bags.origin import Source
from litevlm_ros.errors import ConfigError, OutputError


def is_entry(value: Any) -> bool:
    """`test_caption_messages.py` has the real one."""
    return isinstance(value, dict) and type(value.get("bag_time")) is int and "topic" in value


def opened(file: Path, *, resume: bool = True) -> CaptionLog:
    return CaptionLog(file, ORIGIN, is_entry, resume=resume)


def write(file: Path, *entries: dict[str, Any], resume: bool = False) -> CaptionLog:
    with opened(file, resume=resume) as log:
        for each in entries:
            log.add(each)
    return log


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "captions.jsonl"


def test_each_entry_is_a_line_and_in_the_file_at_once(file: Path) -> None:
    with opened(file, resume=False) as log:
        log.add(caption_entry(1))
        assert list(log.entries()) == [caption_entry(1)]
    assert "길이 비어 있다." in file.read_text(encoding="utf-8")


def test_a_log_is_continued_only_on_request(file: Path) -> None:
    write(file, caption_entry(1), caption_entry(2))
    with pytest.raises(ConfigError, match="exists; --resume continues it"):
        opened(file, resume=False)
    log = write(file, caption_entry(3), resume=True)
    assert log.done == {("/front", 1): 1, ("/front", 2): 1}
    assert [each["bag_time"] for each in log.entries()] == [1, 2, 3]


def test_images_with_one_recording_time_are_counted(file: Path) -> None:
    write(file, caption_entry(1), caption_entry(1), caption_entry(1, topic="/back"))
    assert opened(file).done == Counter({("/front", 1): 2, ("/back", 1): 1})


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        (replace(ORIGIN, prompt="Where?"), "holds answers to 'What\\?', not to 'Where\\?'"),
        (
            replace(ORIGIN, bag=Source("other", "0123")),
            "another bag \\(drive, 0123\\), not of this one \\(other, 0123\\)",
        ),
        (replace(ORIGIN, bag=Source("drive", "9999")), "captions of another bag"),
        (replace(ORIGIN, model=Source("demo", "9999")), "captions of another model \\(demo, 4567\\)"),
    ],
)
def test_other_bags_models_and_questions_do_not_mix(file: Path, origin: Any, told: str) -> None:
    write(file, caption_entry(1), error_entry(2))
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=told):
        CaptionLog(file, origin, is_entry, resume=True)
    assert file.read_bytes() == before


def cut_in_a_letter() -> bytes:
    line = json.dumps(caption_entry(9), ensure_ascii=False).encode()
    return line[: line.index("비".encode()) + 1]


@pytest.mark.parametrize("rest", [b'{"topic": "/front", "bag_ti', b"{", b"\0\0\0", cut_in_a_letter()])
def test_what_a_crash_has_cut_off_is_dropped(file: Path, rest: bytes) -> None:
    write(file, caption_entry(1))
    file.write_bytes(file.read_bytes() + rest)
    log = write(file, caption_entry(2), resume=True)
    assert file.read_bytes().count(b"\n") == 2
    assert list(log.entries()) == [caption_entry(1), caption_entry(2)]
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_a_whole_line_without_its_end_is_kept(file: Path) -> None:
    write(file, caption_entry(1))
    file.write_bytes(file.read_bytes().rstrip(b"\n"))
    assert list(write(file, caption_entry(2), resume=True).entries()) == [caption_entry(1), caption_entry(2)]


@pytest.mark.parametrize(
    "line",
    [b"[1, 2]", b"5", b"null", b"NaN", b'"text"', b'{"topic": 1}', b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 10_000,
     cut_in_a_letter(), b'{"topic": "/front", "bag_time": Infinity}', b"my own notes", b"\0\0\0"],
)  # fmt: skip
def test_lines_that_are_no_entries_are_put_aside_and_the_others_kept(file: Path, line: bytes) -> None:
    write(file, caption_entry(1))
    file.write_bytes(file.read_bytes() + line + b"\n" + json.dumps(caption_entry(2)).encode() + b"\n")
    log = write(file, caption_entry(3), resume=True)
    assert [each["bag_time"] for each in log.entries()] == [1, 2, 3]
    assert [json.loads(each)["bag_time"] for each in file.read_bytes().splitlines()] == [1, 2, 3]
    assert log.rejected_file is not None
    assert log.rejected_file.read_bytes() == line + b"\n"


def test_nothing_is_written_before_it_begins(tmp_path: Path) -> None:
    opened(tmp_path / "out" / "captions.jsonl")
    assert not (tmp_path / "out").exists()


def test_a_link_is_not_followed(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("mine")
    file.symlink_to(other)
    with pytest.raises(ConfigError, match="no plain file"):
        opened(file)
    file.unlink()
    file.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="exists"):
        opened(file, resume=False)
    assert other.read_text() == "mine"


def test_a_file_that_appears_is_not_written_to(file: Path) -> None:
    log = opened(file)
    file.write_text("mine")
    with pytest.raises(OutputError, match="has appeared"), log:
        pass
    assert file.read_text() == "mine"


def test_a_log_that_is_deleted_is_told(file: Path) -> None:
    with opened(file) as log:
        file.unlink()
        with pytest.raises(OutputError, match="was deleted or replaced"):
            log.add(caption_entry(1))


def test_a_full_disk_leaves_whole_lines(file: Path) -> None:
    size = len(json.dumps(caption_entry(1), ensure_ascii=False).encode()) + 1
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(file) as log:
        log.add(caption_entry(1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, limits[1]))
        try:
            with pytest.raises(OutputError, match=r"captions\.jsonl cannot be written .*make room"):
                log.add(caption_entry(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.path.getsize(file) == size
    assert list(opened(file).entries()) == [caption_entry(1)]
