"""The blocks of attention compute what numpy does, in whatever parts they are run."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from litevlm_ros.engines.attention_blocks import text_attention, vision_attention
from litevlm_ros.engines.block_graph import BlockGraph
from litevlm_ros.engines.text_blocks import qkv_width
from litevlm_ros.model_config import TextConfig, VisionConfig
from litevlm_ros.runtime.tensorrt.attention_reference import attend

VISION = VisionConfig(32, 64, 1, 2, 28, 14)
TEXT = TextConfig(64, 64, 1, 6, 2, 8, 1e-6, 1e6, 100, True, 512)
ROWS, CAPACITY = 10, 24


def run(block: BlockGraph, **inputs: Any) -> Any:
    session = onnxruntime.InferenceSession(block.serialized(), providers=["CPUExecutionProvider"])
    return session.run(["output"], inputs)[0].astype(np.float64)


def numbers(*shape: int) -> Any:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float16)


def test_tiles_do_not_see_each_other() -> None:
    rows, width, size = 5, VISION.hidden_size, 16
    qkv = numbers(3 * rows, 3 * width)
    found = run(vision_attention(VISION, "fp16"), qkv=qkv)
    for tile in range(3):
        own = qkv[tile * rows : (tile + 1) * rows]
        for start in (0, size):
            queries, keys, values = (own[:, part * width + start : part * width + start + size] for part in range(3))
            expected = attend(queries, keys, values)
            np.testing.assert_allclose(
                found[tile * rows : (tile + 1) * rows, start : start + size], expected, atol=3e-3
            )


@pytest.mark.parametrize(("new", "valid"), [(1, 1), (ROWS, ROWS), (7, 20), (ROWS, CAPACITY)])
@pytest.mark.parametrize("part", [ROWS, 4, 1])
def test_new_tokens_see_the_cache_up_to_themselves(new: int, valid: int, part: int) -> None:
    block = text_attention(TEXT, "fp16")
    qkv, keys = numbers(ROWS, qkv_width(TEXT)), numbers(CAPACITY, 2, 8)
    values = -keys[::-1].copy()
    lengths, indices = np.array([new, valid], np.int32), np.arange(CAPACITY, dtype=np.int32)
    parts = [slice(start, start + part) for start in range(0, ROWS, part)]
    cache = {"keys": keys, "values": values, "lengths": lengths, "column_indices": indices}
    runs = (run(block, qkv=qkv[rows], row_indices=indices[:ROWS][rows], **cache) for rows in parts)
    found = np.concatenate(list(runs))
    assert np.isfinite(found).all()
    for row in range(new):
        seen = valid - new + row + 1
        for head in range(6):
            own = slice(8 * head, 8 * head + 8)
            expected = attend(qkv[row : row + 1, own], keys[:seen, head // 3], values[:seen, head // 3])
            np.testing.assert_allclose(found[row, own], expected[0], atol=3e-3)


@pytest.mark.parametrize("block", [vision_attention(VISION, "bf16"), text_attention(TEXT, "bf16")])
def test_bf16_blocks_are_bf16_outside(block: BlockGraph) -> None:
    model = onnx.load_from_string(block.serialized())
    kinds = {tensor.name: tensor.type.tensor_type.elem_type for tensor in (*model.graph.input, *model.graph.output)}
    bf16 = {name for name, kind in kinds.items() if kind == onnx.TensorProto.BFLOAT16}
    assert bf16 == kinds.keys() - {"lengths", "row_indices", "column_indices"}
    assert onnx.TensorProto.FLOAT16 not in kinds.values()
