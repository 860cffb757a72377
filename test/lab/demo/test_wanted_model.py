from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tiny_checkpoint import write_checkpoint

from litevlm_ros.download.catalog import PUBLISHED, HubModel, Origin
from litevlm_ros.download.install import install_model
from litevlm_ros.errors import DownloadError
from litevlm_ros.lab.demo.wanted_model import WantedModel, find_wanted, hub_address
from litevlm_ros.model_directory import PARTS, demo_model_directory
from litevlm_ros.published_models import DEFAULT_MODEL, PUBLISHED_MODELS

ENTRY = PUBLISHED_MODELS[DEFAULT_MODEL]


def install(directory: Path, origin: Origin) -> None:
    """Makes a model directory of `origin`, with the demo model's weights."""
    for part in PARTS:
        (directory / part).mkdir(parents=True)
        (directory / part / "model.safetensors").symlink_to(demo_model_directory() / part / "model.safetensors")
        origin.write(directory / part)


def test_a_published_model_has_its_sizes_without_a_network(tmp_path: Path) -> None:
    wanted = find_wanted(DEFAULT_MODEL.upper(), tmp_path)
    assert wanted.directory == tmp_path / DEFAULT_MODEL
    assert wanted.source == PUBLISHED[DEFAULT_MODEL]
    assert (wanted.parameters, wanted.weight_bytes) == (ENTRY.parameters, ENTRY.download_bytes)
    assert not wanted.is_installed
    assert not wanted.has_changed
    assert wanted.staged_bytes == 0


def test_a_download_that_was_interrupted_counts(tmp_path: Path) -> None:
    staged = tmp_path / DEFAULT_MODEL / ".download" / "checkpoint"
    staged.mkdir(parents=True)
    (staged / "model.safetensors.partial").write_bytes(bytes(1000))
    assert find_wanted(DEFAULT_MODEL, tmp_path).staged_bytes == 1000


def test_a_model_that_is_installed_is_found_also_where_download_models_puts_it(tmp_path: Path) -> None:
    origin = Origin(ENTRY.repository, ENTRY.revision, "mit")
    install(tmp_path / "own" / DEFAULT_MODEL, origin)
    install(tmp_path / "whole", origin)
    own, whole = find_wanted(DEFAULT_MODEL, tmp_path / "own"), find_wanted(DEFAULT_MODEL, tmp_path / "whole")
    assert own.is_installed
    assert whole.is_installed
    assert (own.directory, whole.directory) == (tmp_path / "own" / DEFAULT_MODEL, tmp_path / "whole")
    assert 6e6 < own.parameters < 7e6, "counted from the weights that are there"


def test_a_branch_is_kept_once_it_is_there_and_a_commit_must_be_the_same(tmp_path: Path) -> None:
    install(tmp_path / "someone--tiny", Origin("someone/tiny", "0" * 40))
    assert find_wanted("someone/tiny", tmp_path).is_installed
    install(tmp_path / DEFAULT_MODEL, Origin(ENTRY.repository, "0" * 40))
    with pytest.raises(DownloadError, match=f"holds another model .*mv {tmp_path / DEFAULT_MODEL} "):
        find_wanted(DEFAULT_MODEL, tmp_path)


def test_half_a_model_is_not_installed(tmp_path: Path) -> None:
    install(tmp_path / DEFAULT_MODEL, Origin(ENTRY.repository, ENTRY.revision))
    for file in (tmp_path / DEFAULT_MODEL / PARTS[1]).iterdir():
        file.unlink()
    (tmp_path / DEFAULT_MODEL / PARTS[1]).rmdir()
    assert not find_wanted(DEFAULT_MODEL, tmp_path).is_installed


def test_a_model_directory_is_used_where_it_is(tmp_path: Path) -> None:
    wanted = find_wanted(str(demo_model_directory()), tmp_path)
    assert wanted.source is None
    assert wanted.directory == demo_model_directory()
    assert wanted.is_installed


def test_a_checkpoint_that_changes_is_read_again(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "mine")
    wanted = find_wanted(str(checkpoint), tmp_path / "models")
    assert wanted.directory == tmp_path / "models" / "mine"
    assert not wanted.is_installed
    assert not wanted.request.force
    install_model(wanted.request, lambda line: None)
    assert find_wanted(str(checkpoint), tmp_path / "models").is_installed
    later = time.time() + 60
    os.utime(checkpoint / "model.safetensors", (later, later))
    changed = find_wanted(str(checkpoint), tmp_path / "models")
    assert changed.has_changed
    assert not changed.is_installed
    assert changed.request.force


def test_graphs_and_engines_are_known_by_their_names(tmp_path: Path) -> None:
    names = {"text_decoder.onnx", "text_decoder.onnx.data", "vision_encoder_int8.onnx", "text_decoder_fp16.engine",
             "text_decoder_fp16.engine.json"}  # fmt: skip
    for name in (*names, "token_scorer.onnx", "text_decoder"):
        (tmp_path / name).touch()
    found = [file.name for file in WantedModel("mine", None, tmp_path, 1, 2).made_files()]
    assert sorted(found) == sorted(names)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="is not a directory, nor OWNER/NAME"):
        find_wanted("nonsense", tmp_path)


def test_the_hub_is_the_one_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert hub_address() == "https://mirror.example"
    assert HubModel("a/b", "main").is_pinned is False
