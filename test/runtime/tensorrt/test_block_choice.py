"""Blocks come from cuDNN where it is right, and else from TensorRT, which is said once."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from typing import Any

import fake_cudnn
import pytest
from fake_cuda import FakeCuda
from fake_cudnn import FakeCudnn
from stand_in_plans import StandInPlan, StandInPlans

from litevlm_ros.engines.graphs import block_graphs
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig
from litevlm_ros.model_directory import TEXT
from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.block_check import BlockCheck
from litevlm_ros.runtime.tensorrt.block_choice import BlockChoice
from litevlm_ros.runtime.tensorrt.cudnn_library import Cudnn
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.rows import RowKernels
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Room
from litevlm_ros.runtime.tensorrt.text_products import MlpProducts, QkvProducts

CONFIG = TextConfig(96, 160, 2, 6, 2, 16, 1e-6, 1e6, 100, True, 1024)
MODEL = ModelConfig(VisionConfig(64, 128, 2, 4, 56, 14), CONFIG, "internvl2_5", True, 12)


class Race:
    """Stands in for BlockRace: plans of the blocks `won` win."""

    def __init__(self, won: set[str]) -> None:
        self._won = won
        self.asked: list[tuple[str, int, str]] = []

    def plan_wins(self, name: str, rows: int, cudnn_version: str, products: Block, make_plan: Any) -> bool:
        assert not isinstance(products, StandInPlan)
        self.asked.append((name, rows, cudnn_version))
        return name in self._won


class Bench:
    """The choice of the text decoder's blocks on a fake GPU."""

    def __init__(self, fake: FakeCudnn | None, race: Any = None) -> None:
        self.fake = fake
        self.device, self.plans = CudaDevice(), StandInPlans(("mlp", 40))
        with self.device:
            self.memory = DeviceMemory(self.device)
            scratch = Room(self.device, self.memory, "working memory")
            self.kernels = kernels = RowKernels(self.device, CONFIG, "fp16")
            check = BlockCheck(TEXT, block_graphs(TEXT, "fp16", MODEL), MODEL, "fp16", self.device, self.memory)

            def products(cudnn: Cudnn, name: str, rows: int) -> Block:
                kind = {"qkv": QkvProducts, "mlp": MlpProducts}[name]
                return kind(cudnn, kernels, CONFIG, "fp16", rows, scratch)

            plans: Any = self.plans
            race = race or Race(set())
            self.choice = BlockChoice("the text decoder's", products, plans, check, race, self.device, self.memory)

    def block(self, name: str, rows: int) -> Block:
        with self.device:
            return self.choice.block(name, rows)

    def close(self) -> None:
        with self.device:
            self.kernels.close()
            self.choice.close()
            self.memory.free()
        self.device.close()


@pytest.fixture
def bench(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    fake = fake_cudnn.install(monkeypatch, cuda)
    bench = Bench(fake)
    yield bench
    bench.close()
    assert not fake.handles, "a handle of cuDNN was not given back"


def test_a_block_is_made_once_while_somebody_keeps_it(bench: Bench) -> None:
    assert bench.fake is not None
    kept = bench.block("mlp", 40)
    assert isinstance(kept, MlpProducts)
    built = bench.fake.built
    assert bench.block("mlp", 40) is kept
    assert bench.fake.built == built
    del kept
    gc.collect()
    bench.block("mlp", 40)
    assert bench.fake.built > built
    assert not bench.plans.made, "a plan would take memory that nobody uses"


def test_a_plan_that_is_faster_is_taken_where_the_engine_file_has_one(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cudnn.install(monkeypatch, cuda)
    race = Race({"mlp", "qkv"})
    bench = Bench(None, race)
    kept = bench.block("mlp", 40)
    assert isinstance(kept, StandInPlan)
    assert bench.block("mlp", 40) is kept
    assert isinstance(bench.block("qkv", 40), QkvProducts)
    assert race.asked == [("mlp", 40, "9.19.0")], "a plan that had to be built first is no match"
    bench.close()


def test_what_cudnn_multiplies_wrong_is_left_to_tensorrt(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    assert bench.fake is not None
    bench.fake.multiplies_wrong = True
    caplog.set_level(logging.WARNING)
    assert isinstance(bench.block("mlp", 40), StandInPlan)
    assert bench.plans.made == [("mlp", 40)]
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "TensorRT computes the text decoder's block mlp of 40 rows, which is slower than cuDNN: cuDNN 9.19.0 is not "
        "used, it computes nonsense in fp16"
    )


def test_a_size_that_cudnn_refuses_is_left_to_tensorrt(bench: Bench) -> None:
    assert bench.fake is not None
    bench.fake.refuses = {40: "no engine"}
    assert isinstance(bench.block("qkv", 40), StandInPlan)
    assert isinstance(bench.block("qkv", 41), QkvProducts)


def test_without_cudnn_all_blocks_are_plans_and_that_is_said_once(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_cudnn.remove(monkeypatch)
    caplog.set_level(logging.WARNING)
    bench = Bench(None)
    for name in ("qkv", "mlp"):
        assert isinstance(bench.block(name, 40), StandInPlan)
    bench.close()
    assert bench.plans.made == [("qkv", 40), ("mlp", 40)]
    (record,) = caplog.records
    assert "pip install nvidia-cudnn-frontend" in record.getMessage()
