"""A hub on this machine, and the checkpoints of the conversion tests with a tokenizer, as people publish them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_hub import FakeHub, serve
from package_files import ROOT
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
def writers() -> Any:
    """The functions that write checkpoints for the conversion tests."""
    pytest.importorskip("torch", reason="splitting a checkpoint needs torch")
    pytest.importorskip("transformers", reason="the reference model is transformers' InternVL")
    spec = importlib.util.spec_from_file_location("checkpoint_writers", ROOT / "test" / "convert" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def checkpoints(writers: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Whole checkpoints as published: OpenGVLab's naming in one file and in shards, and transformers' own.

    Beside the weights they have what must never be fetched.
    """
    root = tmp_path_factory.mktemp("published")
    model = writers.reference_model()
    written = {
        "original": writers.write_original(model, root / "original"),
        "original-sharded": writers.write_original(model, root / "original-sharded", shards=3),
        "native": writers.write_native(model, root / "native"),
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
