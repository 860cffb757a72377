"""The models of the tests on a GPU: models/demo with engines, and a random InternVL of real size.

`pytest -m gpu test/gpu -s` builds both and shows figures beside each test. LITEVLM_GPU_MODEL names a directory in which
the large model and its engines are kept, so that a further run finds them there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from gpu_bench import answers, build, build_together, loaded, say
from internvl2_1b import INTERNVL2_1B
from package_files import DEMO_MODEL

from litevlm_ros.backend import Backend
from litevlm_ros.lab.benchmarking.build_time import Build, time_build
from litevlm_ros.lab.benchmarking.gpu_access import Gpu
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import PARTS, engine_name
from litevlm_ros.precision import PRECISIONS

DEMO_SIZES = ("--max-tiles", "2", "--max-context", "384")
SMALL_SIZES = ("--max-tiles", "1", "--max-context", "144")
"""Room for one view, a question of `gpu_bench` (84 tokens together) and an answer of 48 tokens."""
LARGE_TILES, LARGE_CONTEXT = 12, 2048


@dataclass(frozen=True)
class Large:
    """A model directory with InternVL2-1B's shapes and random weights; `build` is None if its engines were there."""

    directory: Path
    model: ModelConfig
    build: Build | None


@dataclass(frozen=True)
class LoadedLarge:
    """The large model's backend, the seconds that loading took, and the bytes of GPU memory that it took."""

    backend: Backend
    seconds: float
    taken: int


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/demo with engines in fp16."""
    directory = tmp_path_factory.mktemp("gpu") / "demo"
    shutil.copytree(DEMO_MODEL, directory)
    build(directory, *DEMO_SIZES)
    return directory


@pytest.fixture(scope="session")
def fp16_answers(demo: Path) -> list[str]:
    """The demo model's answers in fp16, with cuDNN where it is there."""
    return answers(demo, backend="tensorrt", vision_precision="fp16", text_precision="fp16")


@pytest.fixture(scope="session")
def all_precisions(demo: Path) -> Path:
    """The demo model with engines in all other precisions beside those in fp16."""
    build_together(demo, *(("--precision", precision, *SMALL_SIZES) for precision in PRECISIONS if precision != "fp16"))
    return demo


@pytest.fixture(scope="session")
def transformers_import() -> Iterator[Future[None]]:
    """The import of PyTorch and transformers, for whose files a machine with a cold disk needs 20 s.

    It goes on while engines are built, which other processes do.
    """

    def import_them() -> None:
        from transformers import InternVLForConditionalGeneration, Qwen2Model  # noqa: F401

    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(import_them)


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory, transformers_import: Future[None]) -> Large:
    from random_internvl import write_random_internvl

    kept = os.environ.get("LITEVLM_GPU_MODEL")
    directory = Path(kept) if kept else tmp_path_factory.mktemp("gpu") / "large"
    if not (directory / "text_decoder" / "config.json").is_file():
        transformers_import.result()
        started = time.monotonic()
        write_random_internvl(directory, INTERNVL2_1B, "cuda")
        say(f"the large model was written in {time.monotonic() - started:.1f} s")
    built = None
    if not all((directory / engine_name(part, "fp16")).is_file() for part in PARTS):
        built = time_build(directory, directory, "fp16", "fp16", LARGE_TILES, LARGE_CONTEXT)
    return Large(directory, ModelConfig.from_directory(directory), built)


@pytest.fixture(scope="session")
def engines(large: Large, gpu: Gpu) -> Iterator[LoadedLarge]:
    before = gpu.free_memory()
    started = time.monotonic()
    with loaded(large.directory, spin_threads=True) as backend:
        seconds = time.monotonic() - started
        purposes = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in backend.memory().items())
        say(f"{backend.description}: {purposes}")
        yield LoadedLarge(backend, seconds, before - gpu.free_memory())


@pytest.fixture(scope="session")
def gpu() -> Iterator[Gpu]:
    with contextlib.closing(Gpu()) as gpu:
        yield gpu
