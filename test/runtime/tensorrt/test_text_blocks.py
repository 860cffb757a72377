"""The text decoder's blocks: all by cuDNN where it is there, and a packed head by a kernel everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_cudnn
import pytest
from fake_cuda import FakeCuda
from stand_in_plans import StandInPlan, StandInPlans

from litevlm_ros.engines.graphs import block_graphs
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig
from litevlm_ros.model_directory import TEXT
from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.block_check import BlockCheck
from litevlm_ros.runtime.tensorrt.block_race import BlockRace
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kept_files import KeptFiles
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Room
from litevlm_ros.runtime.tensorrt.text_blocks import TextBlocks
from litevlm_ros.runtime.tensorrt.text_products import HeadProducts, MlpProducts, PackedHead, QkvProducts

CONFIG = TextConfig(96, 160, 2, 6, 2, 16, 1e-6, 1e6, 100, True, 1024)
MODEL = ModelConfig(VisionConfig(64, 128, 2, 4, 56, 14), CONFIG, "internvl2_5", True, 12)
KINDS = {"qkv": QkvProducts, "mlp": MlpProducts, "head": HeadProducts}


class Bench:
    def __init__(self, *, head_is_packed: bool = False) -> None:
        self.device, self.plans = CudaDevice(), StandInPlans()
        with self.device:
            self.memory = DeviceMemory(self.device)
            scratch = Room(self.device, self.memory, "working memory")
            check = BlockCheck(TEXT, block_graphs(TEXT, "fp16", MODEL), MODEL, "fp16", self.device, self.memory)
            plans: Any = self.plans
            race = BlockRace(check, KeptFiles(Path("none.engine")), self.device)
            self.blocks = TextBlocks(
                CONFIG, plans, check, race, self.device, self.memory, scratch, "fp16", head_is_packed=head_is_packed
            )

    def block(self, name: str, rows: int) -> Block:
        with self.device:
            return self.blocks.block(name, rows)

    def close(self) -> None:
        with self.device:
            self.blocks.close()
            self.memory.free()
        self.device.close()


@pytest.fixture
def bench(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    fake = fake_cudnn.install(monkeypatch, cuda)
    bench = Bench()
    yield bench
    bench.close()
    assert not fake.handles, "a handle of cuDNN was not given back"


@pytest.mark.parametrize("rows", [1, 16, 40])
@pytest.mark.parametrize("name", KINDS)
def test_cudnn_computes_all_blocks_in_all_sizes(bench: Bench, name: str, rows: int) -> None:
    assert isinstance(bench.block(name, rows), KINDS[name])
    assert not bench.plans.made, "a plan would take memory that nobody uses"


def test_a_packed_head_needs_neither_cudnn_nor_a_plan(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cudnn.remove(monkeypatch)
    bench = Bench(head_is_packed=True)
    assert isinstance(bench.block("head", 16), PackedHead)
    assert not bench.plans.made
    assert isinstance(bench.block("mlp", 16), StandInPlan)
    bench.close()
