from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from litevlm_ros.download import disk
from litevlm_ros.download.disk import RESERVE, STAGING, gigabytes, require_free, staging_directory
from litevlm_ros.download.errors import DownloadError


def test_room_is_asked_of_the_disk_that_the_directory_will_be_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def usage(directory: Path) -> SimpleNamespace:
        asked.append(directory)
        return SimpleNamespace(free=5 * 10**9)

    monkeypatch.setattr(disk.shutil, "disk_usage", usage)
    require_free(tmp_path / "not" / "yet", 5 * 10**9 - RESERVE, "a test")
    assert asked == [tmp_path]
    with pytest.raises(DownloadError, match=r"5\.00 GB free and 5\.00 GB are needed \(a test\); free some room"):
        require_free(tmp_path, 5 * 10**9 - RESERVE + 1, "a test")


def test_sizes() -> None:
    assert [gigabytes(count) for count in (1_880_000_000, 10_000_000, 310_000)] == ["1.88 GB", "0.01 GB", "0.31 MB"]


def test_only_what_is_left_in_the_staging_directory_stays(tmp_path: Path) -> None:
    with staging_directory(tmp_path / "models") as staging:
        assert staging == tmp_path / "models" / STAGING
    assert list((tmp_path / "models").iterdir()) == []
    with staging_directory(tmp_path) as staging:
        (staging / "part").touch()
    assert [file.name for file in staging.iterdir()] == ["part"]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    code = f"from litevlm_ros.download.disk import *\nwith staging_directory(Path({str(tmp_path)!r})): pass"
    with staging_directory(tmp_path):
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "another download_models is filling" in result.stderr


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="give --output another directory"), staging_directory(tmp_path / "file"):
        pass
