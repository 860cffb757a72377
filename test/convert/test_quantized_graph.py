"""Graphs with quantized layers compute nearly what they did, hold few bits, and are read by TensorRT-RTX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="torch is needed to convert models: pip install 'litevlm_ros[convert]'")
onnxruntime = pytest.importorskip("onnxruntime")

from torch import nn  # noqa: E402

from litevlm_ros.convert.onnx_graphs import QUANTIZED_OPSET, export_graph, save_graph  # noqa: E402
from litevlm_ros.convert.quantized_graph import QuantizedLayer, quantize_graph  # noqa: E402
from litevlm_ros.convert.quantized_weights import FP8_MAX, INT8_MAX, to_fp8, to_fp8_by_output, to_int4, to_int8  # noqa: E402
from litevlm_ros.errors import EngineError  # noqa: E402

WIDTH = 256
LARGEST = 4.0


class TwoLayers(nn.Module):
    """One linear layer with bias and one without."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.second = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


KINDS: dict[str, Any] = {
    "fp8": lambda weight: QuantizedLayer(to_fp8(weight), LARGEST / FP8_MAX),
    "fp8 by output": lambda weight: QuantizedLayer(to_fp8_by_output(weight), LARGEST / FP8_MAX),
    "fp8 weights": lambda weight: QuantizedLayer(to_fp8_by_output(weight)),
    "int8": lambda weight: QuantizedLayer(to_int8(weight), LARGEST / INT8_MAX),
    "int8 weights": lambda weight: QuantizedLayer(to_int8(weight)),
    "int4": lambda weight: QuantizedLayer(to_int4(weight)),
}


def model() -> TwoLayers:
    torch.manual_seed(1)
    return TwoLayers().half()


def save(kind: str, file: Path) -> Path:
    module = model()
    graph = export_graph(module, (torch.zeros(2, WIDTH).half(),), ({0: "S"},), ["x"], ["y"], QUANTIZED_OPSET)
    layers = {name: KINDS[kind](layer.weight.detach()) for name, layer in module.named_children()}
    quantize_graph(graph, layers)
    save_graph(graph, file)
    return file


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_near_those_of_the_exact_layers(kind: str, tmp_path: Path) -> None:
    session = onnxruntime.InferenceSession(save(kind, tmp_path / "g.onnx"), providers=["CPUExecutionProvider"])
    x = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(2)).clamp(-LARGEST, LARGEST)
    with torch.no_grad():
        exact = model().float()(x).numpy()
    found = session.run(None, {"x": x.half().numpy()})[0]
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < (0.15 if kind == "int4" else 0.06)


@pytest.mark.parametrize(("kind", "bits"), [("fp8", 8), ("fp8 by output", 8), ("int8", 8), ("int4", 4)])
def test_the_file_holds_weights_of_few_bits(kind: str, bits: int, tmp_path: Path) -> None:
    file = save(kind, tmp_path / "g.onnx")
    weights = 2 * WIDTH * WIDTH * bits / 8
    assert weights < file.stat().st_size < 1.35 * weights + 8000
    types = {tensor.name: tensor.data_type for tensor in onnx.load(file).graph.initializer}
    assert "first.weight" not in types


@pytest.mark.parametrize("kind", KINDS)
def test_tensorrt_rtx_reads_it(kind: str, tmp_path: Path) -> None:
    """Reads: it builds engines of few bits only where there is a GPU."""
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(save(kind, tmp_path / "g.onnx"))), parser.get_error(0)


def test_a_layer_that_is_not_there_is_named() -> None:
    graph = export_graph(model(), (torch.zeros(2, WIDTH).half(),), ({0: "S"},), ["x"], ["y"], QUANTIZED_OPSET)
    with pytest.raises(EngineError, match="no linear layer third"):
        quantize_graph(graph, {"third": KINDS["fp8"](torch.ones(WIDTH, WIDTH))})
