"""Blocks come from cuDNN where it is right and fast, and else from TensorRT, which is said once."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import fake_cudnn
import pytest
from block_bench import TEXT_CONFIG, BlockBench, StandInPlan, StandInRace
from fake_cuda import FakeCuda
from fake_cudnn import FakeCudnn

from litevlm_ros.model_directory import TEXT
from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.cudnn_library import Cudnn
from litevlm_ros.runtime.tensorrt.kernels.rows import RowKernels
from litevlm_ros.runtime.tensorrt.text_products import MlpProducts, QkvProducts


class Bench(BlockBench):
    """The choice of two of the text decoder's blocks."""

    def __init__(self, race: StandInRace | None = None) -> None:
        super().__init__(TEXT, race)
        with self.device:
            self._kernels = RowKernels(self.device, TEXT_CONFIG, "fp16")

    def block(self, name: str, rows: int) -> Block:
        def products(cudnn: Cudnn) -> Block:
            kind = {"qkv": QkvProducts, "mlp": MlpProducts}[name]
            return kind(cudnn, self._kernels, TEXT_CONFIG, "fp16", rows, self.scratch)

        with self.device:
            return self.choice.block(name, rows, products)

    def close(self) -> None:
        with self.device:
            self._kernels.close()
        super().close()


@pytest.fixture
def cudnn(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCudnn]:
    fake = fake_cudnn.install(monkeypatch, cuda)
    yield fake
    assert not fake.handles, "a handle of cuDNN was not given back"


@pytest.fixture
def bench(cudnn: FakeCudnn) -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def test_a_block_is_made_once_while_somebody_keeps_it(bench: Bench, cudnn: FakeCudnn) -> None:
    kept = bench.block("mlp", 40)
    assert isinstance(kept, MlpProducts)
    built = cudnn.built
    assert bench.block("mlp", 40) is kept
    assert cudnn.built == built
    del kept
    gc.collect()
    bench.block("mlp", 40)
    assert cudnn.built > built
    assert not bench.plans.made, "a plan would take memory that nobody uses"


def test_a_plan_that_is_faster_is_taken_where_the_engine_file_has_one(cudnn: FakeCudnn) -> None:
    race = StandInRace("mlp", "qkv")
    bench = Bench(race)
    kept = bench.block("mlp", 40)
    assert isinstance(kept, StandInPlan)
    assert bench.block("mlp", 40) is kept
    assert isinstance(bench.block("qkv", 40), QkvProducts)
    assert race.asked == [("mlp", 40, "9.19.0")], "a plan that had to be built first is no match"
    bench.close()


def test_what_cudnn_multiplies_wrong_is_left_to_tensorrt(
    bench: Bench, cudnn: FakeCudnn, caplog: pytest.LogCaptureFixture
) -> None:
    cudnn.multiplies_wrong = True
    caplog.set_level(logging.WARNING)
    assert isinstance(bench.block("mlp", 40), StandInPlan)
    assert bench.plans.made == [("mlp", 40)]
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "TensorRT computes the text decoder's block mlp of 40 rows, which is slower than cuDNN: cuDNN 9.19.0 is not "
        "used, it computes nonsense in fp16"
    )


def test_a_size_that_cudnn_refuses_is_left_to_tensorrt(bench: Bench, cudnn: FakeCudnn) -> None:
    cudnn.refuses = {40: "no engine"}
    assert isinstance(bench.block("qkv", 40), StandInPlan)
    assert isinstance(bench.block("qkv", 41), QkvProducts)


def test_without_cudnn_all_blocks_are_plans_and_that_is_said_once(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_cudnn.remove(monkeypatch)
    caplog.set_level(logging.WARNING)
    bench = Bench()
    for name in ("qkv", "mlp"):
        assert isinstance(bench.block(name, 40), StandInPlan)
    bench.close()
    assert bench.plans.made == [("qkv", 40), ("mlp", 40)]
    (record,) = caplog.records
    assert "pip install nvidia-cudnn-frontend" in record.getMessage()
