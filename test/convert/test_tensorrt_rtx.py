"""Both graphs go through TensorRT-RTX's parser and builder, which need no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder
from litevlm_ros.convert.onnx_graphs import save_graph, text_graph, vision_graph

trt = pytest.importorskip(
    "tensorrt_rtx_bindings",
    reason="TensorRT-RTX is not installed: pip install tensorrt-rtx-cu13-{bindings,libs}==1.4.0.76",
)

Shapes = dict[str, tuple[int, int, int]]
"""Input name without its layer → minimum, optimum and maximum of its dynamic dimension."""


class Collector(trt.ILogger):  # type: ignore[misc]
    """Keeps errors, so that a failing test shows them."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        if severity <= trt.ILogger.ERROR:
            self.errors.append(message)


def build(file: Path, profiles: list[Shapes]) -> bytes:
    """A strongly typed engine for compute capability 8.9."""
    logger = Collector()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(str(file))
    assert parsed, [str(parser.get_error(index)) for index in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    for shapes in profiles:
        profile = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            limits = shapes.get(tensor.name.split(".")[0])
            if limits:
                profile.set_shape(tensor.name, *([size if d < 0 else d for d in tensor.shape] for size in limits))
        assert config.add_optimization_profile(profile) >= 0
    engine = builder.build_serialized_network(network, config)
    assert engine is not None, logger.errors
    return bytes(engine)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_vision_engine(dtype: Any, models: Any, tmp_path: Path) -> None:
    file = tmp_path / "vision_encoder.onnx"
    save_graph(vision_graph(load_vision_encoder(models["native"], dtype)), file)
    assert len(build(file, [{"pixels": (1, 2, 12)}])) > file.stat().st_size / 2


def test_text_engine_with_a_profile_for_prefill_and_one_for_decoding(models: Any, tmp_path: Path) -> None:
    file = tmp_path / "text_decoder.onnx"
    graph = text_graph(load_text_decoder(models["native"], torch.float16), hidden=False)
    assert "hidden" not in [value.name for value in graph.graph.outputs]
    save_graph(graph, file)
    cache = (1, 128, 512)

    def profile(new: tuple[int, int, int]) -> Shapes:
        shapes = {"input_ids": new, "position_ids": new, "logit_positions": (1, 1, 8), "visual_tokens": (1, 64, 512)}
        return shapes | {"past_key": cache, "past_value": cache}

    engine = build(file, [profile((1, 1, 8)), profile((1, 64, 256))])
    assert len(engine) > file.stat().st_size / 2
