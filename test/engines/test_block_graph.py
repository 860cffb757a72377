"""A block's products are summed up in fp32 by TensorRT, which its graph must ask for in the right way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from block_runs import BlockRunner, relative

from litevlm_ros.engines.block_graph import FLOAT, ROWS, UNIT, BlockGraph, BlockTensor, Body
from litevlm_ros.engines.text_blocks import text_blocks
from litevlm_ros.engines.vision_blocks import vision_blocks
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig

TEXT = TextConfig(48, 96, 3, 4, 2, 12, 1e-6, 1e6, 101, True, 512)
VISION = VisionConfig(64, 128, 3, 4, 56, 14)
WIDTH = 16

IN_THE_KERNEL = {"Add", "Mul", "Reshape"}
"""Operations that TensorRT puts into the kernel of the matrix product before them, or that compute nothing."""
SHORTER_SUM = "proj", "o_proj"
"""The weights whose product is added to the residual right away: see `Body.linear`."""


def blocks(precision: str) -> Iterator[BlockGraph]:
    yield from vision_blocks(ModelConfig(VISION, TEXT, "internvl2_5", True, 12), precision)
    yield from text_blocks(TEXT, precision)


@dataclass
class Product:
    """A matrix product in a graph: its weight, and the operations that alone read its result, one behind the other."""

    weight: str
    behind: list[onnx.NodeProto]
    ends_as_output: bool


def products(block: BlockGraph) -> Iterator[Product]:
    graph = onnx.load_from_string(block.serialized()).graph
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        if node.op_type != "Gemm":
            continue
        behind: list[onnx.NodeProto] = []
        result = node.output[0]
        while result not in outputs:
            readers = [each for each in graph.node if result in each.input]
            if len(readers) != 1:
                break
            behind += readers
            result = readers[0].output[0]
        yield Product(node.input[1], behind, result in outputs)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_every_product_is_followed_by_fp32_in_the_same_kernel(precision: str) -> None:
    found = [(block.name, product) for block in blocks(precision) for product in products(block)]
    assert {product.weight for _, product in found} == {
        *("patch_embedding", "qkv_weight", "proj", "fc1", "fc2", "projector1", "projector2"),
        *("o_proj", "gate_up", "down", "head"),
    }
    for name, product in found:
        cast, *further = product.behind
        assert (cast.op_type, cast.attribute[0].i) == ("Cast", onnx.TensorProto.FLOAT), (name, product.weight)
        if further:
            assert further[0].op_type in IN_THE_KERNEL, (name, product.weight)
        else:
            assert product.ends_as_output, f"{name}: only an fp32 output keeps the sum of {product.weight} in fp32"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_no_norm_reads_a_product_but_that_of_attention(precision: str) -> None:
    """A norm would take the conversion to fp32 over into its own kernel."""
    for block in blocks(precision):
        graph = onnx.load_from_string(block.serialized()).graph
        made_by = {name: node for node in graph.node for name in node.output}

        def weights_behind(name: str, made_by: dict[str, onnx.NodeProto] = made_by) -> Iterator[str]:
            node = made_by.get(name)
            if node is not None and node.op_type == "Gemm":
                yield node.input[1]
            elif node is not None:
                for source in node.input:
                    yield from weights_behind(source)

        norms = [node for node in graph.node if node.op_type in ("LayerNormalization", "ReduceMean")]
        assert len(norms) <= 1
        assert {weight for norm in norms for weight in weights_behind(norm.input[0])} <= set(SHORTER_SUM)


def test_unit_is_read_by_blocks_that_have_no_other_factor() -> None:
    with_unit = {block.name for block in text_blocks(TEXT, "fp16") if any(t.name == UNIT for t in block.activations)}
    assert with_unit == {"mlp", "head"}
    for block in blocks("fp16"):
        assert (f"{UNIT})" in block.body) == any(tensor.name == UNIT for tensor in block.activations)


def linear_block(bias: str, factor: str) -> BlockGraph:
    body = Body("float16")
    body.linear("rows", "weight", bias, factor, name="result")
    more = [BlockTensor(name, FLOAT, (1, WIDTH)) for name in (bias, factor) if name]
    return BlockGraph(
        "linear",
        (BlockTensor("rows", "float16", (ROWS, WIDTH)),),
        (BlockTensor("weight", "float16", (WIDTH, WIDTH)), *more),
        (BlockTensor("result", FLOAT, (ROWS, WIDTH)),),
        str(body),
    )


@pytest.mark.parametrize("bias", ["", "bias"])
@pytest.mark.parametrize("factor", ["", "factor"])
def test_linear_is_the_product_plus_bias_times_factor(bias: str, factor: str) -> None:
    rng = np.random.default_rng(4)
    rows, weight = (rng.standard_normal((WIDTH, WIDTH)).astype(np.float16) for _ in range(2))
    more = {"bias": rng.standard_normal((1, WIDTH)), "factor": rng.standard_normal((1, WIDTH))}
    (found,) = BlockRunner(linear_block(bias, factor))({"weight": weight, **more}, rows=rows)
    expected = rows.astype(np.float64) @ weight.astype(np.float64).T
    expected = expected + more["bias"] if bias else expected
    assert found.dtype == np.float32
    assert relative(found, expected * more["factor"] if factor else expected) < 1e-3
