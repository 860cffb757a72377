from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from litevlm_ros.bags.caption_log import CaptionLog, read_entries
from litevlm_ros.errors import ConfigError


def entry(time: int, **fields: Any) -> dict[str, Any]:
    return {"topic": "/front", "bag_time": time, "prompt": "What?", "text": "길이 비어 있다.", **fields}


def write(file: Path, *entries: dict[str, Any], resume: bool = False) -> CaptionLog:
    with CaptionLog(file, "What?", resume=resume) as log:
        for each in entries:
            log.add(each)
    return log


def test_each_entry_is_a_line_and_on_the_disk_at_once(tmp_path: Path) -> None:
    file = tmp_path / "new" / "captions.jsonl"
    with CaptionLog(file, "What?", resume=False) as log:
        log.add(entry(1))
        assert list(read_entries(file)) == [entry(1)]
    assert "길이 비어 있다." in file.read_text(encoding="utf-8")


def test_a_log_is_continued_only_on_request(tmp_path: Path) -> None:
    file = tmp_path / "captions.jsonl"
    write(file, entry(1), entry(2))
    with pytest.raises(ConfigError, match="exists; --resume continues it"):
        CaptionLog(file, "What?", resume=False)
    log = write(file, entry(3), resume=True)
    assert log.done == {("/front", 1), ("/front", 2)}
    assert [each["bag_time"] for each in read_entries(file)] == [1, 2, 3]


def test_other_questions_do_not_mix(tmp_path: Path) -> None:
    file = tmp_path / "captions.jsonl"
    write(file, entry(1), {"topic": "/front", "bag_time": 2, "error": "damaged"})
    with pytest.raises(ConfigError, match="holds answers to 'What\\?', not to 'Where\\?'"):
        CaptionLog(file, "Where?", resume=True)


@pytest.mark.parametrize("rest", ['{"topic": "/front", "bag_ti', "\0\0\0", "{\n"])
def test_what_a_crash_has_cut_off_is_dropped(tmp_path: Path, rest: str) -> None:
    file = tmp_path / "captions.jsonl"
    write(file, entry(1))
    with file.open("a", encoding="utf-8") as stream:
        stream.write(rest)
    write(file, entry(2), resume=True)
    assert list(read_entries(file)) == [entry(1), entry(2)]


def test_nothing_is_written_before_it_begins(tmp_path: Path) -> None:
    CaptionLog(tmp_path / "out" / "captions.jsonl", "What?", resume=True)
    assert not (tmp_path / "out").exists()
