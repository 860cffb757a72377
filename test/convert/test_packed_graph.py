"""Graphs of a packed precision hold few bits, and compute in ONNX Runtime with the numbers of an engine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

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
from litevlm_ros.convert.packed_graph import round_weights, store_packed  # noqa: E402
from litevlm_ros.convert.packed_weights import StoredWeight, pack  # noqa: E402
from litevlm_ros.convert.quantized_weights import quantize_weight  # noqa: E402
from litevlm_ros.errors import EngineError  # noqa: E402
from litevlm_ros.lab.world.render import render  # noqa: E402
from litevlm_ros.lab.world.scene import generate  # noqa: E402
from litevlm_ros.model_directory import PARTS, TEXT, VISION  # noqa: E402
from litevlm_ros.pipeline import Pipeline  # noqa: E402
from litevlm_ros.precision import PACKED_PRECISIONS  # noqa: E402
from litevlm_ros.runtime.onnx.session import session_options  # noqa: E402
from litevlm_ros.types import View  # noqa: E402

WIDTH = 256
QUESTIONS = ("What do you see?", "Is there a car?", "What is the weather?", "How many vehicles are there?")


class TwoLayers(nn.Module):
    """A layer with a bias, and one that shares its weight with a table, as an output projection does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Embedding(64, WIDTH)
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 64, bias=False)
        self.head.weight = self.table.weight
        with torch.no_grad():
            self.layer.weight[3] = 0
            self.layer.weight[4] *= 1e-5

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(torch.relu(self.layer(self.table(ids))))
        return result


def stored(module: TwoLayers, precision: str) -> dict[str, StoredWeight]:
    halves: dict[str, StoredWeight] = {name: parameter.detach().half() for name, parameter in module.named_parameters()}
    return halves | {"layer.weight": quantize_weight(module.layer.weight.detach(), precision)}


def save(module: TwoLayers, weights: Mapping[str, StoredWeight], file: Path) -> Path:
    graph = export_graph(module, (torch.arange(5),), ({0: "S"},), ["ids"], ["y"], PACKED_OPSET)
    store_packed(graph, module, weights)
    save_graph(graph, file)
    return file


@pytest.mark.parametrize("precision", PACKED_PRECISIONS)
def test_onnx_runtime_computes_with_the_rounded_numbers(precision: str, tmp_path: Path) -> None:
    module = TwoLayers().eval()
    with torch.no_grad():
        exact = module(torch.arange(9)).numpy()
    weights = stored(module, precision)
    round_weights(module, weights)
    with torch.no_grad():
        expected = module(torch.arange(9)).numpy()
    assert 1e-3 < np.linalg.norm(expected - exact) / np.linalg.norm(exact) < 0.15
    file = save(module, weights, tmp_path / "g.onnx")
    for options in (onnxruntime.SessionOptions(), session_options(PipelineConfig(DEMO_MODEL))):
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"ids": np.arange(9)})
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("precision", "bits"), [("fp8", 8), ("int8", 8), ("int4", 4)])
def test_the_file_holds_few_bits_and_tied_weights_once(precision: str, bits: int, tmp_path: Path) -> None:
    module = TwoLayers().eval()
    file = save(module, stored(module, precision), tmp_path / "g.onnx")
    weights = WIDTH * WIDTH * bits / 8 + 2 * 64 * WIDTH
    assert weights < file.stat().st_size < weights + 6000
    names = {tensor.name for tensor in onnx.load(file).graph.initializer}
    assert {f"layer.weight.{precision}", "layer.weight.scale", "table.weight.fp16", "layer.bias"} <= names
    assert not {"layer.weight", "table.weight", "head.weight"} & names


def test_a_weight_that_the_graph_lacks_is_named() -> None:
    module = TwoLayers().eval()
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
        return tuple(export_graphs(DEMO_MODEL, directory, dict.fromkeys(PARTS, precision)))

    return export


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("precision", PACKED_PRECISIONS)
def test_graphs_and_engines_hold_the_same_bytes(
    precision: str, exported: Callable[[str], tuple[ExportedGraph, ...]]
) -> None:
    for part, graph in zip((VISION, TEXT), exported(precision), strict=True):
        tensors = {tensor.name: tensor for tensor in onnx.load(graph.file).graph.initializer}
        arrays = pack(part, DEMO_MODEL, precision, None)
        packed = [name for name in arrays if name.endswith((f".{precision}", ".scale"))]
        assert len(packed) == 2 * graph.packed
        for name in packed:
            assert tensors[name].raw_data == arrays[name].tobytes(), name


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("precision", PACKED_PRECISIONS)
def test_the_demo_model_still_sees(precision: str, exported: Callable[[str], tuple[ExportedGraph, ...]]) -> None:
    expected = answers(DEMO_MODEL)
    same = np.mean([a == b for a, b in zip(answers(exported(precision)[0].file.parent), expected, strict=True)])
    assert same >= 0.75


def answers(model: Path) -> list[str]:
    pipeline = Pipeline.from_config(PipelineConfig(model, backend="onnxruntime"))
    said = []
    for seed in (1, 2, 3):
        encoded = pipeline.encode([View("front", render(generate(seed), "front"))])
        said += [pipeline.answer(encoded, question).text for question in QUESTIONS]
    pipeline.close()
    return said
