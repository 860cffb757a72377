"""Real plans, built by TensorRT-RTX, which needs no GPU."""

from __future__ import annotations

import pytest

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (x86-64 only)")

from litevlm_ros.engines.graphs import block_graphs
from litevlm_ros.engines.plan_archive import PlanKey
from litevlm_ros.engines.plan_builder import build_plan
from litevlm_ros.engines.target import Target
from litevlm_ros.errors import EngineError
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig
from litevlm_ros.model_directory import TEXT, VISION

AMPERE = Target((8, 0), "SM80")
MODEL = ModelConfig(
    VisionConfig(1024, 4096, 24, 16, 448, 14),
    TextConfig(896, 4864, 24, 14, 2, 64, 1e-6, 1e6, 151655, True, 32768),
    "internvl2_5",
    True,
    12,
)
"""InternVL2-1B. Plans hold no weights, so its real size costs nothing."""


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize(("part", "rows"), [(VISION, 1025), (TEXT, 64)])
def test_every_block_becomes_a_small_plan_without_a_gpu(part: str, rows: int, precision: str) -> None:
    for block in block_graphs(part, precision, MODEL):
        columns = 2048 if (part, block.name) == (TEXT, "attention") else 0
        plan = build_plan(block.serialized(), PlanKey(block.name, rows, columns), AMPERE, workspace_mib=512)
        assert 10_000 < len(plan) < 4_000_000, f"{block.name}: the weights are not in it"


def test_what_tensorrt_does_not_read_is_said_with_its_reason() -> None:
    with pytest.raises(EngineError, match="TensorRT does not read the block mlp: "):
        build_plan(b"not a graph", PlanKey("mlp", 4), AMPERE)


def test_too_little_workspace_is_said() -> None:
    *_, attention = block_graphs(VISION, "fp16", MODEL)
    with pytest.raises(EngineError, match=r"TensorRT does not build attention-1025: .*OutOfMemory"):
        build_plan(attention.serialized(), PlanKey("attention", 1025), AMPERE, workspace_mib=32)
