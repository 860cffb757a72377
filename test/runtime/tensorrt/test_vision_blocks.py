"""The vision encoder's blocks: all by cuDNN where it is there, and else all by plans."""

from __future__ import annotations

import fake_cudnn
import pytest
from block_bench import MODEL, BlockBench, StandInPlan
from fake_cuda import FakeCuda

from litevlm_ros.model_directory import VISION
from litevlm_ros.runtime.tensorrt.vision_blocks import VisionBlocks
from litevlm_ros.runtime.tensorrt.vision_products import MlpProducts, PatchProducts, ProjectorProducts, QkvProducts

TILE = 1 + MODEL.vision.grid**2
KINDS = {"patches": PatchProducts, "qkv": QkvProducts, "mlp": MlpProducts, "projector": ProjectorProducts}


@pytest.mark.parametrize("has_cudnn", [True, False])
@pytest.mark.parametrize("tiles", [1, 3])
def test_cudnn_computes_all_blocks_where_it_is_there(
    tiles: int, has_cudnn: bool, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fake_cudnn.install(monkeypatch, cuda)
    if not has_cudnn:
        fake_cudnn.remove(monkeypatch)
    bench, rows = BlockBench(VISION), tiles * TILE
    with bench.device:
        blocks = VisionBlocks(MODEL, bench.choice, bench.device, bench.scratch, "fp16")
        for name, kind in KINDS.items():
            assert isinstance(blocks.block(name, rows), kind if has_cudnn else StandInPlan)
        blocks.close()
    assert bench.plans.made == ([] if has_cudnn else [(name, rows) for name in KINDS])
    bench.close()
    assert not fake.handles, "a handle of cuDNN was not given back"
