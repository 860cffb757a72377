from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from litevlm_ros.download import staging as staging_module
from litevlm_ros.download.staging import RESERVE, STAGING, gigabytes, replace_together, require_free, staging_directory
from litevlm_ros.errors import DownloadError


def part(path: Path, contents: str) -> Path:
    path.mkdir(parents=True)
    (path / "file").write_text(contents)
    return path


def test_room_is_asked_of_the_disk_that_the_directory_will_be_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def usage(directory: Path) -> SimpleNamespace:
        asked.append(directory)
        return SimpleNamespace(free=5 * 10**9)

    monkeypatch.setattr(staging_module.shutil, "disk_usage", usage)
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
    code = f"from litevlm_ros.download.staging import *\nwith staging_directory(Path({str(tmp_path)!r})): pass"
    with staging_directory(tmp_path):
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "another download_models is filling" in result.stderr


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="give --output another directory"), staging_directory(tmp_path / "file"):
        pass


def test_new_and_replaced_parts(tmp_path: Path) -> None:
    output, staging = tmp_path / "models", tmp_path / "models" / "staging"
    part(output / "a", "old")
    staged = {name: part(staging / name, "new") for name in ("a", "b")}
    replace_together(staged, output, staging)
    assert [(output / name / "file").read_text() for name in ("a", "b")] == ["new", "new"]
    assert list(staging.iterdir()) == []


def test_a_link_to_a_larger_disk_is_replaced_but_not_what_it_leads_to(tmp_path: Path) -> None:
    elsewhere = part(tmp_path / "elsewhere", "old")
    output = tmp_path / "models"
    output.mkdir()
    (output / "a").symlink_to(elsewhere)
    replace_together({"a": part(tmp_path / "staging" / "a", "new")}, output, tmp_path / "staging")
    assert (output / "a" / "file").read_text() == "new"
    assert (elsewhere / "file").read_text() == "old"
    assert list((tmp_path / "staging").iterdir()) == []


def test_if_one_fails_all_are_as_before(tmp_path: Path) -> None:
    output, staging = tmp_path / "models", tmp_path / "staging"
    part(output / "a", "old")
    staged = {"a": part(staging / "a", "new"), "new": part(staging / "new", "new"), "b": staging / "missing"}
    part(output / "b", "old")
    with pytest.raises(DownloadError, match="everything is as before"):
        replace_together(staged, output, staging)
    assert sorted(path.name for path in output.iterdir()) == ["a", "b"]
    assert [(output / name / "file").read_text() for name in ("a", "b")] == ["old", "old"]
