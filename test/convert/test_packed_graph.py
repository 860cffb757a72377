"""Graphs of a packed precision hold few bits, and compute in ONNX Runtime with the numbers of an engine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from package_files import DEMO_MODEL

torch = pytest.importorskip("torch", reason="torch is needed to convert models: pip install 'litevlm_ros[convert]'")
onnxruntime = pytest.importorskip("onnxruntime")

from torch import nn  # noqa: E402

from litevlm_ros.config import PipelineConfig  # noqa: E402
from litevlm_ros.convert.export import ExportedGraph, export_graphs  # noqa: E402
from litevlm_ros.convert.onnx_graphs import PACKED_OPSET, export_graph, save_graph  # noqa: E402
from litevlm_ros.convert.packed_graph import give_weights, store_packed  # noqa: E402
from litevlm_ros.convert.packed_weights import StoredWeight, pack  # noqa: E402
from litevlm_ros.convert.quantized_weights import quantize_weight  # noqa: E402
from litevlm_ros.errors import EngineError  # noqa: E402
from litevlm_ros.lab.world.render import render  # noqa: E402
from litevlm_ros.lab.world.scene import generate  # noqa: E402
from litevlm_ros.model_directory import PARTS, TEXT, VISION  # noqa: E402
from litevlm_ros.pipeline import Pipeline  # noqa: E402
from litevlm_ros.precision import PACKED_PRECISIONS, WORD_TABLES  # noqa: E402
from litevlm_ros.runtime.onnx.session import session_options  # noqa: E402
from litevlm_ros.types import View  # noqa: E402

WIDTH, WORDS = 256, 64
QUESTIONS = ("What do you see?", "Is there a car?", "What is the weather?", "How many vehicles are there?")


class SmallModel(nn.Module):
    """A layer with a bias, one that is not packed, and a table whose weight the head shares if it is `tied`."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Embedding(WORDS, WIDTH)
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.plain = nn.Linear(WIDTH, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        if tied:
            self.head.weight = self.table.weight
        with torch.no_grad():
            self.layer.weight[3] = 0
            self.layer.weight[4] *= 1e-5

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.plain(torch.relu(self.layer(self.table(ids)))))
        return result


def stored(module: SmallModel, precision: str) -> dict[str, StoredWeight]:
    packed = {"layer.weight": precision, "table.weight": "int8", "head.weight": "int8"}
    return {
        name: quantize_weight(parameter.detach(), packed[name]) if name in packed else parameter.detach().half()
        for name, parameter in module.named_parameters()
    }


def save(module: SmallModel, weights: Mapping[str, StoredWeight], file: Path) -> Path:
    graph = export_graph(module, (torch.arange(5),), ({0: "S"},), ["ids"], ["y"], PACKED_OPSET)
    store_packed(graph, module, weights)
    save_graph(graph, file)
    return file


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("precision", PACKED_PRECISIONS)
def test_onnx_runtime_computes_with_the_rounded_numbers(precision: str, tied: bool, tmp_path: Path) -> None:
    module = SmallModel(tied).eval()
    with torch.no_grad():
        exact = module(torch.arange(9)).numpy()
    weights = stored(module, precision)
    give_weights(module, weights)
    with torch.no_grad():
        expected = module(torch.arange(9)).numpy()
    assert 1e-3 < np.linalg.norm(expected - exact) / np.linalg.norm(exact) < 0.15
    file = save(module, weights, tmp_path / "g.onnx")
    for options in (onnxruntime.SessionOptions(), session_options(PipelineConfig(DEMO_MODEL))):
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"ids": np.arange(9)})
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("precision", "bits"), [("fp8", 8), ("int8", 8), ("int4", 4)])
def test_the_file_holds_few_bits_and_tied_weights_once(precision: str, bits: int, tied: bool, tmp_path: Path) -> None:
    module = SmallModel(tied).eval()
    file = save(module, stored(module, precision), tmp_path / "g.onnx")
    weights = WIDTH * WIDTH * (bits / 8 + 2) + (1 if tied else 2) * WORDS * WIDTH
    assert weights < file.stat().st_size < weights + 6000
    names = {tensor.name for tensor in onnx.load(file).graph.initializer}
    assert {f"layer.weight.{precision}", "layer.weight.scale", "plain.weight.fp16", "layer.bias"} <= names
    assert {"table.weight.int8", "table.weight.scale"} <= names
    assert ({"head.weight.int8", "head.weight.scale"} <= names) is not tied
    assert not {"layer.weight", "plain.weight", "table.weight", "head.weight"} & names


def test_a_weight_that_the_graph_lacks_is_named() -> None:
    module = SmallModel().eval()
    graph = export_graph(module, (torch.arange(5),), ({0: "S"},), ["ids"], ["y"], PACKED_OPSET)
    del graph.graph.initializers["layer.weight"]
    with pytest.raises(EngineError, match=r"no weight layer\.weight to pack"):
        store_packed(graph, module, stored(module, "fp8"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[ExportedGraph, ...]]:
    """Exports both graphs of the demo model in a precision, once, without calibration."""

    @functools.cache
    def export(precision: str) -> tuple[ExportedGraph, ...]:
        directory = tmp_path_factory.mktemp(precision)
        return tuple(export_graphs(DEMO_MODEL, directory, dict.fromkeys(PARTS, precision), exact=True))

    return export


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("precision", PACKED_PRECISIONS)
def test_graphs_and_engines_hold_the_same_bytes(
    precision: str, exported: Callable[[str], tuple[ExportedGraph, ...]]
) -> None:
    for part, graph in zip((VISION, TEXT), exported(precision), strict=True):
        assert same_bytes(graph, pack(part, DEMO_MODEL, precision, None)) == 2 * graph.packed


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("precision", PACKED_PRECISIONS)
def test_a_head_of_its_own_is_in_the_graph_as_in_the_engine(
    precision: str, models: dict[str, Path], tmp_path: Path
) -> None:
    (graph,) = export_graphs(models["original"], tmp_path, {TEXT: precision}, exact=True)
    arrays = pack(TEXT, models["original"], precision, None)
    assert {f"{table}.int8" for table in WORD_TABLES} < set(arrays)
    assert same_bytes(graph, arrays) == 2 * graph.packed


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("precision", PACKED_PRECISIONS)
def test_the_demo_model_still_sees(precision: str, exported: Callable[[str], tuple[ExportedGraph, ...]]) -> None:
    expected = answers(DEMO_MODEL)
    same = np.mean([a == b for a, b in zip(answers(exported(precision)[0].file.parent), expected, strict=True)])
    assert same >= 0.75


def same_bytes(graph: ExportedGraph, arrays: Mapping[str, Any]) -> int:
    """Checks that a graph has the packed tensors of `arrays` byte for byte, and returns how many there are."""
    tensors = {tensor.name: tensor for tensor in onnx.load(graph.file).graph.initializer}
    packed = [name for name in arrays if name.endswith((*(f".{each}" for each in PACKED_PRECISIONS), ".scale"))]
    for name in packed:
        assert tensors[name].raw_data == arrays[name].tobytes(), name
    return len(packed)


def answers(model: Path) -> list[str]:
    pipeline = Pipeline.from_config(PipelineConfig(model, backend="onnxruntime"))
    said = []
    for seed in (1, 2, 3):
        encoded = pipeline.encode([View("front", render(generate(seed), "front"))])
        said += [pipeline.answer(encoded, question).text for question in QUESTIONS]
    pipeline.close()
    return said
