"""A hub on this machine, and checkpoints with a tokenizer as people publish them."""

from __future__ import annotations

import shutil
import subprocess
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
    """Between attempts there is no pause here."""
    transfer = pytest.importorskip("litevlm_ros.download.transfer", reason="downloads need huggingface_hub")
    monkeypatch.setattr(transfer, "time", SimpleNamespace(sleep=lambda seconds: None))
    with serve() as hub:
        yield hub


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of this machine, with its key, that nobody trusts yet."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("a server with https needs openssl to make its certificate")
    file = tmp_path_factory.mktemp("certificate") / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(file), "-out", f"{file}.crt"], check=True, capture_output=True)
    with file.open("a") as opened:
        opened.write(Path(f"{file}.crt").read_text())
    return file


@pytest.fixture
def secure(hub: FakeHub, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with https beside `hub`, and trust in its certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serve(certificate) as secure:
        yield secure


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
