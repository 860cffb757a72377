"""The text decoder's blocks: all by cuDNN where it is there, and a packed head by a kernel everywhere."""

from __future__ import annotations

import fake_cudnn
import pytest
from block_bench import TEXT_CONFIG, BlockBench, StandInPlan
from fake_cuda import FakeCuda

from litevlm_ros.model_directory import TEXT
from litevlm_ros.runtime.tensorrt.text_blocks import TextBlocks
from litevlm_ros.runtime.tensorrt.text_products import HeadProducts, MlpProducts, PackedHead, QkvProducts

KINDS = {"qkv": QkvProducts, "mlp": MlpProducts, "head": HeadProducts}


def blocks_of(bench: BlockBench, *, head_is_packed: bool) -> TextBlocks:
    return TextBlocks(TEXT_CONFIG, bench.choice, bench.device, bench.scratch, "fp16", head_is_packed=head_is_packed)


@pytest.mark.parametrize("rows", [1, 16, 40])
def test_cudnn_computes_all_blocks_in_all_sizes(rows: int, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = fake_cudnn.install(monkeypatch, cuda)
    bench = BlockBench(TEXT)
    with bench.device:
        blocks = blocks_of(bench, head_is_packed=False)
        for name, kind in KINDS.items():
            assert isinstance(blocks.block(name, rows), kind)
        blocks.close()
    assert not bench.plans.made, "a plan would take memory that nobody uses"
    bench.close()
    assert not fake.handles, "a handle of cuDNN was not given back"


def test_a_packed_head_needs_neither_cudnn_nor_a_plan(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cudnn.remove(monkeypatch)
    bench = BlockBench(TEXT)
    with bench.device:
        blocks = blocks_of(bench, head_is_packed=True)
        assert isinstance(blocks.block("head", 16), PackedHead)
        assert not bench.plans.made
        assert isinstance(blocks.block("mlp", 16), StandInPlan)
        blocks.close()
    bench.close()
