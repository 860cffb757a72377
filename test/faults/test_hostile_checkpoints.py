"""Checkpoints and hubs that are damaged or made to harm: `download_models` succeeds or says why not in one line."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub, serve
from model_fuzzer import damaged_bytes, odd_values
from tiny_tokenizer import make_tokenizer, write_tokenizer

from litevlm_ros.tools import download_models

pytest.importorskip("torch", reason="splitting a checkpoint needs torch")
pytest.importorskip("huggingface_hub", reason="downloads need huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/model"

HOSTILE: tuple[Any, ...] = (
    10**4000, -5, 5e-324, 1e300, "\x1b[2J\x07", "x" * 5000, "\0", "../x.json", "/etc/x.json", "..", "x" * 300 + ".json",
    [[[]]], {"\x1b": 1}, "\ud800", ["\ud800"], "model-00001-of-99999.safetensors",
)  # fmt: skip
"""Values beside those that damage brings."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in shards with every file that is read."""
    from published_checkpoints import reference_model, write_original

    directory = write_original(reference_model(), tmp_path_factory.mktemp("published") / "model", shards=2)
    write_tokenizer(make_tokenizer(), directory)
    special = {"eos_token": {"content": "<|im_end|>"}, "additional_special_tokens": ["<img>"]}
    (directory / "special_tokens_map.json").write_text(json.dumps(special))
    (directory / "preprocessor_config.json").write_text(json.dumps({"crop_size": 448, "image_mean": [0.1, 0.2, 0.3]}))
    return directory


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serve() as hub:
        yield hub


def outcome(arguments: list[str], output: Path, capfd: pytest.CaptureFixture[str], case: str) -> int:
    """Runs the tool, checks what it shows and leaves, and returns its status."""
    status = download_models.main([*arguments, "--output", str(output)])
    shown = capfd.readouterr()
    assert (shown.out + shown.err).replace("\n", "").isprintable(), case
    if status:
        # Where the tokenizer's library would crash, it writes its own lines first.
        assert shown.err.strip().splitlines()[-1], case
        assert "Traceback" not in shown.err, case
        left = {path.name for path in output.iterdir()} if output.exists() else set()
        assert left <= {".download"}, case
    shutil.rmtree(output, ignore_errors=True)
    return status


def changes(data: bytes, count: int, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    yield from damaged_bytes(data, 1, rng)
    yield from odd_values(data, count, rng)
    yield from odd_values(data, count, rng, HOSTILE)


@pytest.mark.parametrize(
    "name",
    [
        "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json",
        "preprocessor_config.json", "model.safetensors.index.json",
    ],
)  # fmt: skip
def test_files_that_describe_a_checkpoint(
    name: str, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "source")
    statuses = set()
    for case, changed in changes((checkpoint / name).read_bytes(), 20, random.Random(name)):
        (source / name).write_bytes(changed)
        statuses.add(outcome(["--model", str(source)], tmp_path / "models", capfd, case))
    assert statuses == ({0} if name == "preprocessor_config.json" else {0, 1})


def test_headers_of_weights(checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "source")
    file = source / "model-00001-of-00002.safetensors"
    data = file.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    rng = random.Random(1)
    for case, header in changes(data[8:end], 20, rng):
        file.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])
        outcome(["--model", str(source)], tmp_path / "models", capfd, case)
    for case, start in damaged_bytes(data[:end], 4, rng):
        file.write_bytes(start + data[end:])
        outcome(["--model", str(source)], tmp_path / "models", capfd, case)


def test_listings(hub: FakeHub, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hub.publish(REPOSITORY, checkpoint, COMMIT)
    data = json.dumps(hub.listing(REPOSITORY, "main", blobs=True)).encode()
    arguments = ["--model", REPOSITORY, "--endpoint", hub.url]
    for case, changed in changes(data, 40, random.Random(1)):
        hub.page = changed or b" "
        outcome(arguments, tmp_path / "models", capfd, case)
    hub.page = b""
    assert outcome(arguments, tmp_path / "models", capfd, "as published") == 0


@pytest.mark.parametrize("contents", [b"", b"[" * 200_000, b'{"model": 5}', b'{"model": "\x1b[2J", "revision": ""}'])
def test_notes_of_origin(contents: bytes, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", str(checkpoint), "--output", str(tmp_path / "models")]
    assert download_models.main(arguments) == 0
    (tmp_path / "models" / "text_decoder" / "origin.json").write_bytes(contents)
    assert download_models.main(arguments) == 1
    assert "text_decoder is there already, of unknown origin" in capfd.readouterr().err


def test_an_origin_that_would_clear_the_screen(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--output", str(tmp_path / "models")]
    assert download_models.main([*arguments, "--model", str(checkpoint)]) == 0
    origin = {"model": "\x1b[2J\x9b2J", "revision": "", "licence": ""}
    for part in ("text_decoder", "vision_encoder"):
        (tmp_path / "models" / part / "origin.json").write_text(json.dumps(origin))
    assert download_models.main(arguments) == 0
    assert download_models.main([*arguments, "--model", str(checkpoint)]) == 1
    shown = capfd.readouterr()
    assert (shown.out + shown.err).replace("\n", "").isprintable()
    assert shown.out.count(r"is there: \x1b[2J\x9b2J") == 2
