"""Attention of InternVL2-1B's size by cuDNN, and by TensorRT where cuDNN is missing, against numpy."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gpu_bench import FEW_SCENES, answers, equal_share, say

from litevlm_ros.config import PipelineConfig
from litevlm_ros.engines.plan_archive import PlanArchive
from litevlm_ros.lab.benchmarking.gpu_access import Gpu
from litevlm_ros.lab.benchmarking.stages import median_ms
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.runtime.tensorrt.attention_check import check_text, check_vision
from litevlm_ros.runtime.tensorrt.cudnn_attention import CudnnTextAttention, CudnnVisionAttention
from litevlm_ros.runtime.tensorrt.cudnn_library import Cudnn
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.engine_attention import EngineTextAttention, EngineVisionAttention, Indices
from litevlm_ros.runtime.tensorrt.engine_files import find_engine
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Room
from litevlm_ros.runtime.tensorrt.plans import BlockPlans

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

CAPACITY = 2112
"""Rows of the cache at a context of 2048."""
KERNELS = (("cudnn", "fp16"), ("cudnn", "bf16"), ("tensorrt", "fp16"))
"""Libraries and the types in which they compute here: TensorRT's plans are those of an engine in fp16."""


@dataclass(frozen=True)
class Bench:
    """A device with both parts' plans."""

    device: CudaDevice
    memory: DeviceMemory
    plans: dict[str, BlockPlans]
    model: ModelConfig
    indices: Indices
    cudnn: Cudnn


@pytest.fixture(scope="module")
def bench(large: Any) -> Iterator[Bench]:
    device = CudaDevice(spin=True)
    config = PipelineConfig(large.directory, backend="tensorrt")
    with device:
        memory = DeviceMemory(device)
        scratch = Room(device, memory, "working memory")
        plans = {
            part: BlockPlans(PlanArchive.open(find_engine(config, part).path), device, scratch)
            for part in (VISION, TEXT)
        }
        cudnn = Cudnn(device, memory)
        say(f"cuDNN {cudnn.version}")
        yield Bench(device, memory, plans, large.model, Indices(memory, CAPACITY), cudnn)
        device.wait()
        cudnn.close()
        for each in plans.values():
            each.close()
        memory.free()
    device.close()


@pytest.mark.parametrize("tiles", [1, 6, 12])
@pytest.mark.parametrize(("library", "computed"), KERNELS)
def test_attention_within_tiles(bench: Bench, library: str, tiles: int, computed: str) -> None:
    config = bench.model.vision
    kernel: Any
    if library == "cudnn":
        kernel = CudnnVisionAttention(bench.cudnn, config, computed, tiles)
    else:
        kernel = EngineVisionAttention(bench.plans[VISION], config, tiles)
    assert check_vision(kernel.enqueue, bench.device, bench.memory, config, computed, tiles) == ""
    _say_time(bench, f"{library}, {computed}, {tiles} tiles", kernel, _vision_addresses(bench, tiles))


@pytest.mark.parametrize("rows", [1, 2, 16, 64, 448, 1792])
@pytest.mark.parametrize(("library", "computed"), KERNELS)
def test_attention_to_the_cache(bench: Bench, library: str, rows: int, computed: str) -> None:
    config = bench.model.text
    kernel: Any
    if library == "cudnn":
        kernel = CudnnTextAttention(bench.cudnn, config, computed, rows, CAPACITY)
    else:
        kernel = EngineTextAttention(bench.plans[TEXT], config, rows, CAPACITY, bench.indices)
    assert check_text(kernel.enqueue, bench.device, bench.memory, config, computed, rows, CAPACITY) == ""


def _vision_addresses(bench: Bench, tiles: int) -> tuple[int, int]:
    config = bench.model.vision
    numbers = 2 * tiles * (1 + config.grid**2) * config.hidden_size
    return bench.memory.allocate("sample", 3 * numbers), bench.memory.allocate("sample", numbers)


def _say_time(bench: Bench, what: str, kernel: Any, addresses: tuple[int, ...]) -> None:
    """Prints the µs of one attention, as the mean of many in a row."""
    count = 10

    def work() -> None:
        for _ in range(count):
            kernel.enqueue(*addresses)
        bench.device.wait()

    work()
    say(f"{what}: {1e3 * median_ms(work, 5) / count:.0f} µs")
    for address in addresses:
        bench.memory.release(address)


def test_without_cudnn_it_answers_as_with_it_and_says_so_once(
    demo: Path, fp16_answers: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "cudnn", None)
    with caplog.at_level(logging.WARNING):
        found = answers(demo, FEW_SCENES, backend="tensorrt", vision_precision="fp16", text_precision="fp16")
    assert equal_share(found, fp16_answers, "attention by TensorRT instead of cuDNN") >= 0.9
    warnings = [record.getMessage() for record in caplog.records if "cuDNN" in record.getMessage()]
    assert len(warnings) == 1, warnings
    assert "pip install nvidia-cudnn-frontend" in warnings[0]


def test_cudnn_is_used_where_it_is_there(demo: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), contextlib.closing(Gpu()):
        answers(demo, scenes=1, backend="tensorrt")
    assert not [record for record in caplog.records if "cuDNN" in record.getMessage()], caplog.text
