from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from fake_hub import FakeHub
from safetensors import SafetensorError

from litevlm_ros.checksums import changed_files
from litevlm_ros.download import staging
from litevlm_ros.download.catalog import Origin
from litevlm_ros.download.install import InstallRequest, install_model
from litevlm_ros.errors import CheckpointError, DownloadError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import CHECKSUMS, PARTS, TEXT, VISION
from litevlm_ros.text.tokenizer import TextTokenizer

torch = pytest.importorskip("torch", reason="splitting a checkpoint needs torch")

from litevlm_ros.convert import checkpoint_split  # noqa: E402
from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder  # noqa: E402

OTHER_COMMIT = "f" * 40


def silent(line: str) -> None:
    """Nobody listens."""


def contents(directory: Path) -> dict[str, str]:
    """Relative path → hash of every file."""
    return {
        file.relative_to(directory).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


def check_loads(model: Path) -> None:
    config = ModelConfig.from_directory(model)
    assert (config.vision.num_layers, config.text.num_layers) == (2, 3)
    assert sum(parameter.numel() for parameter in load_vision_encoder(model).parameters()) > 1000
    assert sum(parameter.numel() for parameter in load_text_decoder(model).parameters()) > 1000
    assert TextTokenizer.from_directory(model).special("<IMG_CONTEXT>") > 0


@pytest.fixture
def wanted(published: FakeHub, repository: str, tmp_path: Path) -> InstallRequest:
    """The whole model from the hub on this machine."""
    return InstallRequest(tmp_path / "models", repository, endpoint=published.url)


def changed(request: InstallRequest, **changes: Any) -> InstallRequest:
    return InstallRequest(**{**vars(request), **changes})


@pytest.mark.parametrize("layout", ["original", "original-sharded", "native"])
def test_from_the_hub_in_every_layout(
    layout: str,
    wanted: InstallRequest,
    published: FakeHub,
    checkpoints: dict[str, Path],
    repository: str,
    tmp_path: Path,
) -> None:
    published.publish(repository, checkpoints[layout], OTHER_COMMIT)
    install_model(wanted, silent)
    check_loads(wanted.output)
    for part in PARTS:
        assert Origin.read(wanted.output / part) == Origin(repository, OTHER_COMMIT, "mit")
    assert sorted(path.name for path in wanted.output.iterdir()) == sorted((CHECKSUMS, *PARTS))
    # The same as without the network.
    install_model(InstallRequest(tmp_path / "local", str(checkpoints[layout])), silent)
    for directory in (wanted.output, tmp_path / "local"):
        assert changed_files(directory) == {}
        for file in (directory / CHECKSUMS, *directory.rglob("origin.json")):
            file.unlink()
    assert contents(wanted.output) == contents(tmp_path / "local")


def test_every_file_may_be_read_by_whom_the_directory_is_for(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        install_model(InstallRequest(tmp_path / "models", str(checkpoints["original"])), silent)
    finally:
        os.umask(before)
    files = [file for file in (tmp_path / "models").rglob("*") if file.is_file()]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o640}


def test_a_checkpoint_on_disk(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    lines: list[str] = []
    install_model(InstallRequest(tmp_path / "models", str(checkpoints["native"])), lines.append)
    check_loads(tmp_path / "models")
    assert Origin.read(tmp_path / "models" / TEXT) == Origin(str(checkpoints["native"].resolve()), "")
    assert "of weights to split; " in lines[0]
    assert [line.split(":")[0] for line in lines[1:]] == [str(tmp_path / "models" / part) for part in PARTS]


def test_one_half_then_the_other(wanted: InstallRequest, published: FakeHub) -> None:
    install_model(changed(wanted, parts=(TEXT,)), silent)
    assert sorted(path.name for path in wanted.output.iterdir()) == [CHECKSUMS, TEXT]
    before = contents(wanted.output / TEXT)
    install_model(changed(wanted, parts=(VISION,)), silent)
    assert contents(wanted.output / TEXT) == before
    check_loads(wanted.output)


def test_what_is_there_is_not_fetched_again(wanted: InstallRequest, published: FakeHub) -> None:
    install_model(wanted, silent)
    published.requests.clear()
    lines: list[str] = []
    install_model(wanted, lines.append)
    assert published.requests == []
    assert ["is there" in line for line in lines] == [True, True]


def test_whatever_model_is_there_will_do_unless_one_is_named(
    wanted: InstallRequest, published: FakeHub, commit: str
) -> None:
    install_model(wanted, silent)
    published.status = 500
    install_model(changed(wanted, model=None), silent)
    published.status = 0
    before = contents(wanted.output)
    for other in ({"model": "internvl3-1b"}, {"model": None, "revision": OTHER_COMMIT}):
        with pytest.raises(DownloadError, match=r"is there already, .* with --force, or fill another directory"):
            install_model(changed(wanted, **other), silent)
    assert contents(wanted.output) == before


def test_force_replaces(
    wanted: InstallRequest, published: FakeHub, checkpoints: dict[str, Path], repository: str
) -> None:
    install_model(wanted, silent)
    (wanted.output / VISION / "stray").touch()
    published.publish(repository, checkpoints["native"], OTHER_COMMIT)
    with pytest.raises(DownloadError, match="is there already"):
        install_model(wanted, silent)
    install_model(changed(wanted, force=True), silent)
    assert not (wanted.output / VISION / "stray").exists()
    assert Origin.read(wanted.output / VISION) == Origin(repository, OTHER_COMMIT, "mit")
    check_loads(wanted.output)


def test_halves_of_two_models_do_not_meet(wanted: InstallRequest, checkpoints: dict[str, Path]) -> None:
    install_model(changed(wanted, parts=(TEXT,)), silent)
    other = changed(wanted, model=str(checkpoints["native"]), parts=(VISION,))
    for force in (False, True):
        with pytest.raises(DownloadError, match="the halves of a model are trained together"):
            install_model(changed(other, force=force), silent)
    assert sorted(path.name for path in wanted.output.iterdir()) == [CHECKSUMS, TEXT]


def test_a_half_of_unknown_origin_is_not_replaced_unasked(wanted: InstallRequest) -> None:
    (wanted.output / TEXT).mkdir(parents=True)
    with pytest.raises(DownloadError, match="is there already, of unknown origin"):
        install_model(wanted, silent)
    install_model(changed(wanted, force=True), silent)
    check_loads(wanted.output)


# Failures


def test_a_broken_download_leaves_the_model_as_it_was_and_goes_on_later(
    wanted: InstallRequest, published: FakeHub
) -> None:
    published.cuts["model.safetensors"] = [50_000] + [0] * 20
    with pytest.raises(DownloadError, match="run the command again to continue"):
        install_model(wanted, silent)
    assert [path.name for path in wanted.output.iterdir()] == [staging.STAGING]
    published.cuts.clear()
    published.requests.clear()
    install_model(wanted, silent)
    assert [asked for _, asked in published.requests] == ["bytes=50000-"]
    check_loads(wanted.output)
    assert sorted(path.name for path in wanted.output.iterdir()) == sorted((CHECKSUMS, *PARTS))


def test_a_failed_replacement_leaves_the_old_model(wanted: InstallRequest, published: FakeHub) -> None:
    install_model(wanted, silent)
    before = contents(wanted.output)
    published.corrupt.add("model.safetensors")
    with pytest.raises(DownloadError, match="hash is not"):
        install_model(changed(wanted, force=True), silent)
    assert {name: value for name, value in contents(wanted.output).items() if staging.STAGING not in name} == before
    check_loads(wanted.output)


def test_the_disk_is_asked_before_anything_is_fetched(
    wanted: InstallRequest, published: FakeHub, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = (checkpoints["original"] / "model.safetensors").stat().st_size
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: SimpleNamespace(free=staging.RESERVE + 2 * weights))
    with pytest.raises(DownloadError, match="to download, and as much as the weights to split them"):
        install_model(wanted, silent)
    assert published.requests == []
    assert not list(wanted.output.iterdir())
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: SimpleNamespace(free=staging.RESERVE + weights - 1))
    with pytest.raises(DownloadError, match=r"are needed \(as much as the weights in"):
        install_model(changed(wanted, model=str(checkpoints["original"])), silent)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_the_disk_fills_up_while_splitting(
    error: Exception, wanted: InstallRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint_split, "save_file", Mock(side_effect=error))
        with pytest.raises(DownloadError, match=r"cannot be written \(.*No space left.*free some room there"):
            install_model(wanted, silent)
    assert [path.name for path in wanted.output.iterdir()] == [staging.STAGING]
    install_model(wanted, silent)
    check_loads(wanted.output)


def test_an_architecture_that_cannot_run_is_refused_before_its_weights_are_fetched(
    wanted: InstallRequest, published: FakeHub, repository: str, commit: str
) -> None:
    files = published.repositories[repository][commit]
    config = json.loads(files["config.json"])
    config["llm_config"] |= {"model_type": "internlm2", "architectures": ["InternLM2ForCausalLM"]}
    files["config.json"] = json.dumps(config).encode()
    with pytest.raises(CheckpointError, match=r"^someone/tiny-internvl@0123456789abcdef\w+/config\.json: .*internlm2"):
        install_model(wanted, silent)
    assert not [path for path, _ in published.requests if path.endswith(".safetensors")]
    assert list(wanted.output.iterdir()) == []
    files["config.json"] = b'{"model_type": "llama"}'
    shutil.rmtree(wanted.output)
    with pytest.raises(CheckpointError, match="a language model without a vision encoder"):
        install_model(wanted, silent)


@pytest.mark.parametrize(
    ("file", "contents", "reason"),
    [
        ("config.json", b"[" * 200_000, "cannot be read as JSON"),
        ("tokenizer.json", b"{}", "the tokenizer in .* is damaged"),
        ("tokenizer_config.json", b"[]", "holds a list"),
        ("generation_config.json", b"9" * 6000, "cannot be read as JSON"),
        ("special_tokens_map.json", b"\xff", "cannot be read as JSON"),
    ],
)
def test_what_describes_the_weights_is_read_before_they_are_fetched(
    file: str,
    contents: bytes,
    reason: str,
    wanted: InstallRequest,
    published: FakeHub,
    repository: str,
    commit: str,
) -> None:
    published.repositories[repository][commit][file] = contents
    with pytest.raises(CheckpointError, match=reason) as raised:
        install_model(wanted, silent)
    assert str(raised.value).isprintable()
    assert staging.STAGING not in str(raised.value)
    assert not [path for path, _ in published.requests if path.endswith(".safetensors")]
    assert list(wanted.output.iterdir()) == []


def test_a_tokenizer_without_the_tokens_of_images(
    wanted: InstallRequest, published: FakeHub, repository: str, commit: str
) -> None:
    files = published.repositories[repository][commit]
    files["tokenizer.json"] = files["tokenizer.json"].replace(b"<img>", b"<imj>")
    with pytest.raises(CheckpointError, match="the tokenizer has no <img>"):
        install_model(wanted, silent)
    assert not [path for path, _ in published.requests if path.endswith(".safetensors")]


def test_weights_that_are_not_those_of_the_configuration_are_not_kept(
    wanted: InstallRequest, published: FakeHub, repository: str, commit: str
) -> None:
    """The hub's hashes are right, so a second attempt would fetch the same."""
    published.repositories[repository][commit]["model.safetensors"] = b"\xff" * 50_000
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or not a safetensors file"):
        install_model(wanted, silent)
    assert list(wanted.output.iterdir()) == []


def test_what_it_will_take_is_told_first(
    wanted: InstallRequest, published: FakeHub, checkpoints: dict[str, Path]
) -> None:
    lines: list[str] = []
    published.cuts["config.json"] = [0] * 6
    with pytest.raises(DownloadError):
        install_model(wanted, lines.append)
    weights = (checkpoints["original"] / "model.safetensors").stat().st_size
    (line,) = lines
    assert f"(mit): {staging.gigabytes(sum_of(published, wanted))} to download from {published.url}; " in line
    assert f" of disk needed until it is split, {staging.gigabytes(weights)} afterwards" in line


def sum_of(hub: FakeHub, request: InstallRequest) -> int:
    """Returns the bytes of all files that belong to a checkpoint."""
    (files,) = hub.repositories[str(request.model)].values()
    names = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    return sum(len(files[name]) for name in names)


def test_a_checkpoint_without_a_tokenizer_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(checkpoints["original"], whole, ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(CheckpointError, match=r"whole.*tokenizer"):
        install_model(InstallRequest(tmp_path / "models", str(whole)), silent)
    assert not (tmp_path / "models").exists()


def test_a_damaged_checkpoint_on_disk_leaves_nothing(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(checkpoints["original"], whole)
    data = (whole / "model.safetensors").read_bytes()
    (whole / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="cut off"):
        install_model(InstallRequest(tmp_path / "models", str(whole)), silent)
    assert not list((tmp_path / "models").iterdir())


def test_a_model_directory_is_no_checkpoint(wanted: InstallRequest) -> None:
    install_model(wanted, silent)
    with pytest.raises(DownloadError, match="is a model directory already"):
        install_model(changed(wanted, model=str(wanted.output)), silent)
