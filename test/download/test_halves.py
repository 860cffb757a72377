from __future__ import annotations

from pathlib import Path

import pytest

from litevlm_ros.download.errors import DownloadError
from litevlm_ros.download.halves import ORIGIN_FILE, Origin, replace_together

ORIGIN = Origin("someone/model", "0" * 40, "mit")


def half(path: Path, contents: str) -> Path:
    path.mkdir(parents=True)
    (path / "file").write_text(contents)
    return path


def test_an_origin_is_kept_with_the_half(tmp_path: Path) -> None:
    ORIGIN.write(tmp_path)
    assert Origin.read(tmp_path) == ORIGIN
    assert str(ORIGIN) == f"someone/model at {'0' * 40}"
    assert str(Origin("/checkpoints/mine", "")) == "/checkpoints/mine"


@pytest.mark.parametrize("contents", [None, "", "[]", "{}", '{"model": "x"}'])
def test_an_unknown_origin(contents: str | None, tmp_path: Path) -> None:
    if contents is not None:
        (tmp_path / ORIGIN_FILE).write_text(contents)
    assert Origin.read(tmp_path) is None


def test_the_licence_does_not_make_another_model() -> None:
    assert ORIGIN.is_same_model(Origin(ORIGIN.model, ORIGIN.revision, ""))
    assert not ORIGIN.is_same_model(Origin(ORIGIN.model, "1" * 40, "mit"))


def test_new_and_replaced_halves(tmp_path: Path) -> None:
    output, staging = tmp_path / "models", tmp_path / "models" / "staging"
    half(output / "a", "old")
    staged = {name: half(staging / name, "new") for name in ("a", "b")}
    replace_together(staged, output, staging)
    assert [(output / name / "file").read_text() for name in ("a", "b")] == ["new", "new"]
    assert list(staging.iterdir()) == []


def test_a_link_to_a_larger_disk_is_replaced_but_not_what_it_leads_to(tmp_path: Path) -> None:
    elsewhere = half(tmp_path / "elsewhere", "old")
    output = tmp_path / "models"
    output.mkdir()
    (output / "a").symlink_to(elsewhere)
    replace_together({"a": half(tmp_path / "staging" / "a", "new")}, output, tmp_path / "staging")
    assert (output / "a" / "file").read_text() == "new"
    assert (elsewhere / "file").read_text() == "old"
    assert list((tmp_path / "staging").iterdir()) == []


def test_if_one_fails_all_are_as_before(tmp_path: Path) -> None:
    output, staging = tmp_path / "models", tmp_path / "staging"
    half(output / "a", "old")
    staged = {"a": half(staging / "a", "new"), "new": half(staging / "new", "new"), "b": staging / "missing"}
    half(output / "b", "old")
    with pytest.raises(DownloadError, match="everything is as before"):
        replace_together(staged, output, staging)
    assert sorted(path.name for path in output.iterdir()) == ["a", "b"]
    assert [(output / name / "file").read_text() for name in ("a", "b")] == ["old", "old"]
