"""A hub on this machine, and checkpoints with a tokenizer as people publish them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_hub import FakeHub, serve
from tiny_tokenizer import make_tokenizer, write_tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/tiny-internvl"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """huggingface_hub waits between its attempts, and loses what it has of a chunk of 10 MB; here all is smaller."""
    file_download = pytest.importorskip("huggingface_hub.file_download", reason="downloads need huggingface_hub")
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(file_download.constants, "DOWNLOAD_CHUNK_SIZE", 500)
    with serve() as hub:
        yield hub


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Whole checkpoints as published: OpenGVLab's naming in one file and in shards, and transformers' own.

    Beside the weights they have what must never be fetched.
    """
    pytest.importorskip("torch", reason="splitting a checkpoint needs torch")
    from published_checkpoints import reference_model, write_native, write_original

    root = tmp_path_factory.mktemp("published")
    model = reference_model()
    written = {
        "original": write_original(model, root / "original"),
        "original-sharded": write_original(model, root / "original-sharded", shards=3),
        "native": write_native(model, root / "native"),
    }
    for directory in written.values():
        write_tokenizer(make_tokenizer(), directory)
        (directory / "modeling_internvl_chat.py").write_text("raise SystemExit('remote code ran')\n")
        (directory / "pytorch_model.bin").write_bytes(b"pickled")
        (directory / "runs").mkdir()
        (directory / "runs" / "events.json").write_text("{}")
    return written


@pytest.fixture
def published(hub: FakeHub, checkpoints: dict[str, Path]) -> FakeHub:
    """The hub with REPOSITORY, in OpenGVLab's naming."""
    hub.publish(REPOSITORY, checkpoints["original"], COMMIT)
    return hub


@pytest.fixture
def repository() -> str:
    return REPOSITORY


@pytest.fixture
def commit() -> str:
    return COMMIT
