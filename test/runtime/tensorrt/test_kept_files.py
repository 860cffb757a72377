"""Files that are kept beside an engine are read again, unless somebody else could have written them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from litevlm_ros.runtime.tensorrt.kept_files import KeptFiles


def test_what_was_kept_is_read_again(tmp_path: Path) -> None:
    kept = KeptFiles(tmp_path / "a.engine")
    assert kept.read("one.kernels") == b""
    assert not list(tmp_path.iterdir()), "nothing is made before there is anything to keep"
    kept.write("one.kernels", b"code")
    assert KeptFiles(tmp_path / "a.engine").read("one.kernels") == b"code"
    assert KeptFiles(tmp_path / "b.engine").read("one.kernels") == b""


@pytest.mark.parametrize("name", [".", "one.kernels"])
def test_what_others_can_write_is_not_read(tmp_path: Path, name: str) -> None:
    kept = KeptFiles(tmp_path / "a.engine")
    kept.write("one.kernels", b"code")
    (tmp_path / "a.runtime_cache" / name).chmod(0o777)
    assert kept.read("one.kernels") == b""


def test_what_cannot_be_kept_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "a.runtime_cache").write_text("a file where the directory should be")
    KeptFiles(tmp_path / "a.engine").write("one.kernels", b"code")
    assert "a.runtime_cache/one.kernels cannot be kept" in caplog.text
    assert "so it is made again at each start" in caplog.text


def test_what_changed_on_disk_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = KeptFiles(tmp_path / "a.engine")
    kept.write("one.kernels", b"code")
    file = tmp_path / "a.runtime_cache" / "one.kernels"
    whole = file.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        file.write_bytes(changed)
        assert kept.read("one.kernels") == b""
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert kept.read("one.kernels") == b""
    assert f"{file} is damaged, and made again" in caplog.text


@pytest.mark.parametrize("link", ["directory", "file"])
def test_what_a_link_of_others_leads_to_is_neither_read_nor_written(tmp_path: Path, link: str) -> None:
    elsewhere = tmp_path / "shared" / "a.runtime_cache"
    elsewhere.mkdir(parents=True)
    own = tmp_path / "own"
    own.mkdir()
    KeptFiles(tmp_path / "shared" / "a.engine").write("one.kernels", b"code")
    cache = own / "a.runtime_cache"
    if link == "directory":
        cache.symlink_to(elsewhere)
    else:
        cache.mkdir()
        (cache / "one.kernels").symlink_to(elsewhere / "one.kernels")
    kept = KeptFiles(own / "a.engine")
    assert kept.read("one.kernels") == b"code"
    elsewhere.parent.chmod(0o777)
    assert kept.read("one.kernels") == b""
    if link == "directory":
        kept.write("two.kernels", b"code")
        assert not (elsewhere / "two.kernels").exists()
