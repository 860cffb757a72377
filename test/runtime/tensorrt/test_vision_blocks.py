"""The vision encoder's blocks: all by cuDNN where it is there, and else all by plans."""

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
from litevlm_ros.model_directory import VISION
from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.block_check import BlockCheck
from litevlm_ros.runtime.tensorrt.block_race import BlockRace
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kept_files import KeptFiles
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Room
from litevlm_ros.runtime.tensorrt.vision_blocks import VisionBlocks
from litevlm_ros.runtime.tensorrt.vision_products import MlpProducts, PatchProducts, ProjectorProducts, QkvProducts

TEXT_CONFIG = TextConfig(96, 160, 2, 6, 2, 16, 1e-6, 1e6, 100, True, 1024)
MODEL = ModelConfig(VisionConfig(64, 128, 2, 4, 56, 14), TEXT_CONFIG, "internvl2_5", True, 12)
KINDS = {"patches": PatchProducts, "qkv": QkvProducts, "mlp": MlpProducts, "projector": ProjectorProducts}


class Bench:
    def __init__(self) -> None:
        self.device, self.plans = CudaDevice(), StandInPlans()
        with self.device:
            self.memory = DeviceMemory(self.device)
            scratch = Room(self.device, self.memory, "working memory")
            check = BlockCheck(VISION, block_graphs(VISION, "fp16", MODEL), MODEL, "fp16", self.device, self.memory)
            plans: Any = self.plans
            race = BlockRace(check, KeptFiles(Path("none.engine")), self.device)
            self.blocks = VisionBlocks(MODEL, plans, check, race, self.device, self.memory, scratch, "fp16")

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


@pytest.mark.parametrize("tiles", [1, 3])
@pytest.mark.parametrize("name", KINDS)
def test_cudnn_computes_all_blocks_in_all_sizes(bench: Bench, name: str, tiles: int) -> None:
    assert isinstance(bench.block(name, 17 * tiles), KINDS[name])
    assert not bench.plans.made, "a plan would take memory that nobody uses"


def test_without_cudnn_all_blocks_are_plans(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cudnn.remove(monkeypatch)
    bench = Bench()
    assert all(isinstance(bench.block(name, 17), StandInPlan) for name in KINDS)
    assert bench.plans.made == [(name, 17) for name in KINDS]
    bench.close()
