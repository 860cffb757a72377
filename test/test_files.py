from __future__ import annotations

import errno
from pathlib import Path

import pytest

from litevlm_ros.errors import OutputError
from litevlm_ros.files import explaining_full_disk, replacing, write_bytes, write_text


def test_new_contents_take_the_place_of_the_old_ones_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "kept.json"
    file.write_text("old")
    with replacing(file) as unfinished:
        unfinished.write_text("new")
        assert file.read_text() == "old"
        assert unfinished.parent == tmp_path, "a rename is atomic only within one file system"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_contents_are_written_as_they_are(tmp_path: Path) -> None:
    write_bytes(tmp_path / "bytes", memoryview(b"\0\xff\r\n"))
    write_text(tmp_path / "text", "Größe\n")
    assert (tmp_path / "bytes").read_bytes() == b"\0\xff\r\n"
    assert (tmp_path / "text").read_bytes() == "Größe\n".encode()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_after_an_error_the_file_is_as_it_was_and_nothing_is_left(tmp_path: Path, error: BaseException) -> None:
    file = tmp_path / "kept.json"
    file.write_text("old")

    def fail_halfway() -> None:
        with replacing(file) as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail_halfway()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_contents_that_cannot_reach_the_disk_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "new.json", "contents")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_a_disk_without_room_is_explained(code: int) -> None:
    with (
        pytest.raises(OutputError, match=r"^out/a\.engine cannot be written \(why\); make room on the disk, or give"),
        explaining_full_disk(Path("out/a.engine")),
    ):
        raise OSError(code, "why")


def test_other_errors_are_left_as_they_are() -> None:
    with pytest.raises(PermissionError), explaining_full_disk(Path("out/a.engine")):
        raise PermissionError(errno.EACCES, "Permission denied")
