from __future__ import annotations

from pathlib import Path

import pytest

from litevlm_ros.download.catalog import PUBLISHED, HubModel, Origin, find_model
from litevlm_ros.errors import DownloadError
from litevlm_ros.model_directory import ORIGIN_FILE
from litevlm_ros.published_models import DEFAULT_MODEL, PUBLISHED_MODELS

ORIGIN = Origin("someone/model", "0" * 40, "mit")


def test_a_published_model_is_pinned_to_a_commit_of_its_own_or_is_the_main_branch() -> None:
    commits = [model.revision for model in PUBLISHED.values() if model.is_pinned]
    assert len(set(commits)) == len(commits) > 0
    assert {model.revision for model in PUBLISHED.values()} - set(commits) == {"main"}
    assert PUBLISHED.keys() == PUBLISHED_MODELS.keys()
    assert PUBLISHED[DEFAULT_MODEL].is_pinned


def test_names_in_any_case() -> None:
    assert find_model("InternVL3-2B") == PUBLISHED["internvl3-2b"]


def test_another_revision_replaces_the_pinned_one() -> None:
    model = find_model("internvl2-1b", "main")
    assert model == HubModel("OpenGVLab/InternVL2-1B", "main")
    assert isinstance(model, HubModel)
    assert not model.is_pinned


def test_a_directory_goes_before_a_repository_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_model("someone/model") == HubModel("someone/model", "main")
    (tmp_path / "someone" / "model").mkdir(parents=True)
    assert find_model("someone/model") == Path("someone/model")


def test_a_directory_has_no_revision(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="--revision main does not apply"):
        find_model(str(tmp_path), "main")


@pytest.mark.parametrize("name", ["internvl9", "../somewhere/else", "/nowhere", "a/b/c", "-x/y", ""])
def test_anything_else_is_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(DownloadError, match="internvl2-1b"):
        find_model(name)


def test_an_origin_is_kept_with_the_part(tmp_path: Path) -> None:
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
