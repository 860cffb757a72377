"""A block's graph asks TensorRT in the right way for sums in fp32, and its statements compute what they say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from block_runs import BlockRunner, relative

from litevlm_ros.engines.block_graph import FLOAT, ROWS, UNIT, BlockGraph, BlockTensor, Body, wide_type
from litevlm_ros.engines.text_blocks import text_blocks
from litevlm_ros.engines.vision_blocks import vision_blocks
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig

TEXT = TextConfig(48, 96, 3, 4, 2, 12, 1e-6, 1e6, 101, True, 512)
VISION = VisionConfig(64, 128, 3, 4, 56, 14)
NO_BIAS = VisionConfig(64, 128, 3, 4, 56, 14, qkv_bias=False)
WIDTH = 16

SAME_KERNEL = {"Add", "Mul", "Tanh", "Cast", "Reshape"}
"""Operations that TensorRT puts into the kernel of the matrix product before them, or that compute nothing."""
NEXT_KERNEL = {"Gemm", "Split", "LayerNormalization", "ReduceMean"}
"""Operations at which the kernel of a matrix product before them ends."""
SHORTER_SUM = "proj", "o_proj"
"""The weights whose product is added to the residual right away: see `Body.linear`."""


def blocks(precision: str) -> Iterator[BlockGraph]:
    for vision in (VISION, NO_BIAS):
        yield from vision_blocks(ModelConfig(vision, TEXT, "internvl2_5", True, 12), precision)
    yield from text_blocks(TEXT, precision)


@dataclass
class Product:
    """A matrix product in a graph: its weight, and the operations that its kernel may hold, in their order.

    `chain` has the first of them, each of which alone reads the result of the one before it.
    """

    weight: str
    same_kernel: list[onnx.NodeProto]
    chain: list[onnx.NodeProto]
    ends_as_output: bool


def products(block: BlockGraph) -> Iterator[Product]:
    graph = onnx.load_from_string(block.serialized()).graph
    for node in graph.node:
        if node.op_type == "Gemm":
            chain, ends_as_output = chain_behind(graph, node)
            yield Product(node.input[1], same_kernel(graph, node), chain, ends_as_output)


def chain_behind(graph: onnx.GraphProto, product: onnx.NodeProto) -> tuple[list[onnx.NodeProto], bool]:
    outputs = {value.name for value in graph.output}
    chain: list[onnx.NodeProto] = []
    result = product.output[0]
    while result not in outputs:
        readers = [each for each in graph.node if result in each.input]
        if len(readers) != 1:
            break
        chain += readers
        result = readers[0].output[0]
    return chain, result in outputs


def same_kernel(graph: onnx.GraphProto, product: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Returns what is computed from a product alone, up to the next product, norm or Split.

    The last steps of a norm read its input once more, but wait for its mean, so they are behind the norm.
    """
    inside, behind = set(product.output), set[str]()
    found = []
    for node in graph.node:
        read = set(node.input)
        if read & behind or (read & inside and node.op_type in NEXT_KERNEL):
            behind.update(node.output)
        elif read & inside:
            assert node.op_type in SAME_KERNEL, f"does TensorRT put {node.op_type} into a product's kernel?"
            found.append(node)
            inside.update(node.output)
    return found


def converts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i == kind


def test_every_fp16_product_is_followed_by_fp32_in_the_same_kernel() -> None:
    found = [(block.name, product) for block in blocks("fp16") for product in products(block)]
    assert {product.weight for _, product in found} == {
        *("patch_embedding", "qkv_weight", "proj", "fc1", "fc2", "projector1", "projector2"),
        *("o_proj", "gate_up", "down", "head"),
    }
    for name, product in found:
        cast, *further = product.chain
        assert converts_to(cast, onnx.TensorProto.FLOAT), (name, product.weight)
        if further:
            assert further[0] in product.same_kernel, (name, product.weight)
            assert not converts_to(further[0], onnx.TensorProto.FLOAT16), f"{name}: {product.weight} is not in fp32"
        else:
            assert product.ends_as_output, f"{name}: only an fp32 output keeps the sum of {product.weight} in fp32"


def test_no_bf16_product_is_converted_back_to_bf16_in_the_same_kernel() -> None:
    """Its kernel would compute in fp32 before that, and write nonsense: see `Body.linear`."""
    for block in blocks("bf16"):
        for product in products(block):
            back = [node for node in product.same_kernel if converts_to(node, onnx.TensorProto.BFLOAT16)]
            assert not back, (block.name, product.weight)
            if product.weight == "fc1":
                assert "Tanh" in {node.op_type for node in product.same_kernel}, "GELU is in the product's kernel"


def test_a_conversion_back_to_bf16_would_be_noticed() -> None:
    body = Body("bfloat16")
    wide = body.cast(body.op("Gemm<transB = 1>(rows, weight)"), FLOAT)
    body.cast(body.op(f"Add({wide}, bias)"), "bfloat16", "result")
    (product,) = products(small_block(body, "bfloat16", "result", "bfloat16", bias=FLOAT))
    assert [node.op_type for node in product.same_kernel] == ["Cast", "Add", "Cast"]
    assert converts_to(product.same_kernel[-1], onnx.TensorProto.BFLOAT16)


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


def test_unit_is_an_input_of_the_blocks_that_read_it_and_of_no_other() -> None:
    for precision in ("fp16", "bf16"):
        for block in blocks(precision):
            graph = onnx.load_from_string(block.serialized()).graph
            is_read = any(UNIT in node.input for node in graph.node)
            assert is_read == any(tensor.name == UNIT for tensor in block.activations), (precision, block.name)


def with_unit(graphs: tuple[BlockGraph, ...]) -> set[str]:
    return {block.name for block in graphs if any(tensor.name == UNIT for tensor in block.activations)}


def test_unit_follows_fp16_products_that_have_neither_bias_nor_factor() -> None:
    assert with_unit(text_blocks(TEXT, "fp16")) == {"mlp", "head"}
    assert with_unit(text_blocks(TEXT, "bf16")) == set()
    for vision, blocks_with_unit in ((VISION, set()), (NO_BIAS, {"qkv"})):
        model = ModelConfig(vision, TEXT, "internvl2_5", True, 12)
        assert with_unit(vision_blocks(model, "fp16")) == blocks_with_unit
        assert with_unit(vision_blocks(model, "bf16")) == set()


def small_block(body: Body, kind: str, result: str, to: str, **more: str) -> BlockGraph:
    """Returns a block whose product has the type `kind` and whose result the type `to`. `more` are types of rows."""
    return BlockGraph(
        "small",
        (BlockTensor("rows", kind, (ROWS, WIDTH)), *body.unit()),
        (
            BlockTensor("weight", kind, (WIDTH, WIDTH)),
            *(BlockTensor(name, type_, (1, WIDTH)) for name, type_ in more.items()),
        ),
        (BlockTensor(result, to, (ROWS, WIDTH)),),
        str(body),
    )


@pytest.mark.parametrize("bias", ["", "bias"])
@pytest.mark.parametrize("factor", ["", "factor"])
@pytest.mark.parametrize(
    ("kind", "to"), [("float16", FLOAT), ("float16", "float16"), ("bfloat16", FLOAT), ("bfloat16", "bfloat16")]
)
def test_linear_is_the_product_plus_bias_times_factor(kind: str, to: str, bias: str, factor: str) -> None:
    body = Body(kind)
    assert body.linear("rows", "weight", bias, factor, to=to, name="result") == "result"
    assert bool(body.unit()) == (kind == to == "float16" and not bias and not factor)
    block = small_block(body, kind, "result", to, **{name: wide_type(kind) for name in (bias, factor) if name})
    onnx.checker.check_model(onnx.load_from_string(block.serialized()), full_check=True)
    rng = np.random.default_rng(4)
    rows, weight = (rng.standard_normal((WIDTH, WIDTH)).astype(np.float16) for _ in range(2))
    more = {"bias": rng.standard_normal((1, WIDTH)), "factor": rng.standard_normal((1, WIDTH))}
    (found,) = BlockRunner(block)({"weight": weight, **more}, rows=rows)
    expected = rows.astype(np.float64) @ weight.astype(np.float64).T
    expected = expected + more["bias"] if bias else expected
    assert found.dtype == (np.float16 if to == "float16" else np.float32)
    assert relative(found, expected * more["factor"] if factor else expected) < 1e-3


def gelu(values: Any) -> Any:
    """Returns GELU of a float16 block, of fp32 values."""
    body = Body("float16")
    result = body.gelu("value")
    block = BlockGraph(
        "gelu", (BlockTensor("value", FLOAT, (ROWS, 1)),), (), (BlockTensor(result, "float16", (ROWS, 1)),), str(body)
    )
    (found,) = BlockRunner(block)({}, value=values.reshape(-1, 1))
    return found.astype(np.float64).ravel()


def test_gelu_is_nearly_the_exact_one() -> None:
    """It is off by 2.713e-4, then rounded to fp16: by 2**-11 of the result, or 2**-25 near 0."""
    values = np.linspace(-12, 12, 240_001, dtype=np.float32)
    exact = np.array([x / 2 * math.erfc(-x / math.sqrt(2)) for x in values.tolist()])
    assert np.all(np.abs(gelu(values) - exact) <= 2.72e-4 + np.abs(exact) * 2**-11 + 2**-25)


def test_gelu_of_large_values_is_0_or_the_value() -> None:
    values = np.array([-6e4, -1e4, -100, -12, -0.0, 0, 12, 100, 1e4, 6e4], np.float32)
    np.testing.assert_array_equal(gelu(values), np.maximum(values, 0))
