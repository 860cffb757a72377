"""Graphs for a CPU multiply in 8 bits by the numbers of an engine, and treat every row by itself."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="torch is needed to convert models: pip install 'litevlm_ros[convert]'")
onnxruntime = pytest.importorskip("onnxruntime")

from torch import nn  # noqa: E402

from litevlm_ros.config import PipelineConfig  # noqa: E402
from litevlm_ros.convert.cpu_graph import store_for_cpu  # noqa: E402
from litevlm_ros.convert.onnx_graphs import PACKED_OPSET, export_graph, save_graph  # noqa: E402
from litevlm_ros.convert.packed_graph import give_weights  # noqa: E402
from litevlm_ros.convert.packed_weights import StoredWeight  # noqa: E402
from litevlm_ros.convert.quantized_weights import quantize_weight  # noqa: E402
from litevlm_ros.errors import EngineError  # noqa: E402
from litevlm_ros.model_directory import demo_model_directory  # noqa: E402
from litevlm_ros.runtime.onnx.session import session_options  # noqa: E402

WIDTH, WORDS = 256, 64


class Words(nn.Module):
    """A word table, a layer with a bias, one without, and a head that shares the table if it is `tied`."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed_tokens = nn.Embedding(WORDS, WIDTH)
        self.layer = nn.Linear(WIDTH, 2 * WIDTH)
        self.plain = nn.Linear(2 * WIDTH, WIDTH, bias=False)
        self.lm_head = nn.Linear(WIDTH, WORDS, bias=False)
        if tied:
            self.lm_head.weight = self.embed_tokens.weight
        with torch.no_grad():
            self.embed_tokens.weight[5] = 0  # its row has no scale to round with
            self.embed_tokens.weight[6] *= 30

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        words = self.embed_tokens(ids)
        result: torch.Tensor = self.lm_head(words + self.plain(torch.relu(self.layer(words))))
        return result


def stored(module: Words, precision: str) -> dict[str, StoredWeight]:
    tables = ("embed_tokens.weight", "lm_head.weight")
    return {
        name: quantize_weight(parameter.detach(), "int8" if name in tables else precision)
        if parameter.dim() == 2
        else parameter.detach()
        for name, parameter in module.named_parameters()
    }


def draw(module: Words, weights: dict[str, StoredWeight]) -> Any:
    give_weights(module, weights, placeholders=True)
    graph = export_graph(module, (torch.arange(5),), ({0: "S"},), ["ids"], ["y"], PACKED_OPSET)
    store_for_cpu(graph, module, weights)
    return graph


def run(file: Path, ids: list[int]) -> Any:
    options = session_options(PipelineConfig(demo_model_directory()))
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": np.array(ids)})[0]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_products_in_8_bits_are_those_of_the_stored_weights(precision: str, tied: bool, tmp_path: Path) -> None:
    module = Words(tied).eval()
    weights = stored(module, precision)
    save_graph(draw(module, weights), tmp_path / "g.onnx")
    give_weights(module, weights)
    found = run(tmp_path / "g.onnx", [0, 1, 5, 6, 63])
    with torch.no_grad():
        expected = module(torch.tensor([0, 1, 5, 6, 63])).numpy()
    error = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert (error < 0.03).all(), error
    assert error.max() > 1e-5, "the input of a product is rounded"


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_row_is_the_same_beside_any_others(precision: str, tmp_path: Path) -> None:
    module = Words().eval()
    save_graph(draw(module, stored(module, precision)), tmp_path / "g.onnx")
    alone = np.concatenate([run(tmp_path / "g.onnx", [word]) for word in (1, 6, 2)])
    np.testing.assert_allclose(run(tmp_path / "g.onnx", [1, 6, 2]), alone, atol=1e-5 * np.abs(alone).max())


def test_a_graph_holds_few_bits_and_tied_weights_once(tmp_path: Path) -> None:
    for precision, bits in (("int8", 8), ("int4", 4)):
        module = Words().eval()
        save_graph(draw(module, stored(module, precision)), tmp_path / "g.onnx")
        size = (tmp_path / "g.onnx").stat().st_size
        weights = 4 * WIDTH * WIDTH * bits / 8 + WORDS * WIDTH
        assert weights < size < weights + 20_000
        operators = Counter(node.op_type for node in onnx.load(tmp_path / "g.onnx").graph.node)
        assert operators["MatMulNBits"] == (1 if precision == "int8" else 3)
        assert operators["MatMulIntegerToFloat"] == (2 if precision == "int8" else 0)
        assert not operators["Gemm"]


def test_a_weight_that_the_graph_lacks_is_named() -> None:
    module = Words().eval()
    weights = stored(module, "int8")
    graph = export_graph(module, (torch.arange(5),), ({0: "S"},), ["ids"], ["y"], PACKED_OPSET)
    del graph.graph.initializers["layer.weight"]
    with pytest.raises(EngineError, match=r"no weight layer\.weight to pack"):
        store_for_cpu(graph, module, weights)


def test_a_use_that_is_no_product_is_refused() -> None:
    module = Words().eval()
    graph = export_graph(module, (torch.arange(5),), ({0: "S"},), ["ids"], ["y"], PACKED_OPSET)
    graph.graph.initializers["plain.weight"].uses()[0].node.op_type = "MatMul"
    with pytest.raises(EngineError, match=r"MatMul reads plain\.weight"):
        store_for_cpu(graph, module, stored(module, "int8"))
