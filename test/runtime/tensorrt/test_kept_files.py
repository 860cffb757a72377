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
