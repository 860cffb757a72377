"""The tiny model with engines of a fake TensorRT, and a fake GPU to run them on.

Fixtures import what they need, so that tests of kernels run without the packages that make engines.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from backends import load
from fake_cuda import FakeCuda

from litevlm_ros.backend import Backend
from litevlm_ros.runtime.tensorrt import weight_upload


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with fp16 engines. Not to be changed: take `copy` for that."""
    import fake_tensorrt
    from tiny_internvl import model_directory

    directory = tmp_path_factory.mktemp("engines") / "model"
    shutil.copytree(model_directory(), directory)
    fake_tensorrt.write_engines(directory, directory)
    return directory


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model with fp16 engines: the decode kernels take its shapes. Not to be changed, but for kept files."""
    import fake_tensorrt
    from package_files import DEMO_MODEL

    directory = tmp_path_factory.mktemp("engines") / "demo"
    shutil.copytree(DEMO_MODEL, directory)
    fake_tensorrt.write_engines(directory, directory)
    return directory


@pytest.fixture
def copy(directory: Path, tmp_path: Path) -> Path:
    """A copy of `directory`."""
    shutil.copytree(directory, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A fake GPU with TensorRT and cuDNN."""
    import fake_tensorrt

    cuda = FakeCuda()
    fake_tensorrt.install(monkeypatch, cuda)
    monkeypatch.setattr(weight_upload, "PIECE_BYTES", 1 << 16)  # filling the real ones takes half of the time
    yield cuda
    fake_tensorrt.forget()


@pytest.fixture
def backend(directory: Path, cuda: FakeCuda) -> Iterator[Backend]:
    """The engines of `directory`, loaded."""
    backend = load(directory, backend="tensorrt")
    yield backend
    backend.close()
