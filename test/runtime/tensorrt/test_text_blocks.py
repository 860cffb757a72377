"""The text decoder's blocks come from cuDNN where it is right, and else from TensorRT, which is said once."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import fake_cudnn
import pytest
from fake_cuda import FakeCuda
from fake_cudnn import FakeCudnn

from litevlm_ros.engines.graphs import block_graphs
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig
from litevlm_ros.model_directory import TEXT
from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.block_check import BlockCheck
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Room
from litevlm_ros.runtime.tensorrt.plans import PlanBlock
from litevlm_ros.runtime.tensorrt.product_blocks import HeadProducts, MlpProducts, PackedHead, QkvProducts
from litevlm_ros.runtime.tensorrt.text_blocks import TextBlocks

CONFIG = TextConfig(96, 160, 2, 6, 2, 16, 1e-6, 1e6, 100, True, 1024)
MODEL = ModelConfig(VisionConfig(64, 128, 2, 4, 56, 14), CONFIG, "internvl2_5", True, 12)
KINDS = {"qkv": QkvProducts, "mlp": MlpProducts, "head": HeadProducts}


class PlanStandIn(PlanBlock):
    """A plan that nobody runs."""

    def __init__(self) -> None:
        pass

    def enqueue(self, addresses: Mapping[str, int]) -> None:
        raise AssertionError("this plan is not for running")


class Plans:
    """A stand-in for BlockPlans that remembers what it was asked for."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int]] = []

    def block(self, name: str, rows: int) -> Block:
        self.made.append((name, rows))
        return PlanStandIn()


class Bench:
    def __init__(self, fake: FakeCudnn | None, *, head_is_packed: bool = False) -> None:
        self.fake = fake
        self.device, self.plans = CudaDevice(), Plans()
        with self.device:
            self.memory = DeviceMemory(self.device)
            scratch = Room(self.device, self.memory, "working memory")
            check = BlockCheck(TEXT, block_graphs(TEXT, "fp16", MODEL), MODEL, "fp16", self.device, self.memory)
            plans: Any = self.plans
            self.blocks = TextBlocks(
                CONFIG, plans, check, self.device, self.memory, scratch, "fp16", head_is_packed=head_is_packed
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
    bench = Bench(fake)
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
    bench = Bench(None, head_is_packed=True)
    head = bench.block("head", 16)
    assert isinstance(head, PackedHead)
    assert bench.block("head", 16) is head
    assert not bench.plans.made
    assert isinstance(bench.block("mlp", 16), PlanStandIn)
    bench.close()


def test_a_block_is_made_once_while_somebody_keeps_it(bench: Bench) -> None:
    assert bench.fake is not None
    kept = bench.block("mlp", 40)
    built = bench.fake.built
    assert bench.block("mlp", 40) is kept
    assert bench.fake.built == built
    del kept
    gc.collect()
    bench.block("mlp", 40)
    assert bench.fake.built > built


def test_what_cudnn_multiplies_wrong_is_left_to_tensorrt(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    assert bench.fake is not None
    bench.fake.multiplies_wrong = True
    caplog.set_level(logging.WARNING)
    assert isinstance(bench.block("mlp", 40), PlanStandIn)
    assert bench.plans.made == [("mlp", 40)]
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "TensorRT computes the text decoder's block mlp of 40 rows, which is slower than cuDNN: cuDNN 9.19.0 is not "
        "used, it computes nonsense in fp16"
    )


def test_a_size_that_cudnn_refuses_is_left_to_tensorrt(bench: Bench) -> None:
    assert bench.fake is not None
    bench.fake.refuses = {40: "no engine"}
    assert isinstance(bench.block("qkv", 40), PlanStandIn)
    assert isinstance(bench.block("qkv", 41), QkvProducts)


def test_without_cudnn_all_blocks_are_plans_and_that_is_said_once(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_cudnn.remove(monkeypatch)
    caplog.set_level(logging.WARNING)
    bench = Bench(None)
    for name in KINDS:
        assert isinstance(bench.block(name, 40), PlanStandIn)
    bench.close()
    assert bench.plans.made == [(name, 40) for name in KINDS]
    (record,) = caplog.records
    assert "pip install nvidia-cudnn-frontend" in record.getMessage()
