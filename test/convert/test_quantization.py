"""A whole part in few bits, on ONNX Runtime, against the part in fp16."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from package_files import DEMO_MODEL

torch = pytest.importorskip("torch", reason="torch is needed to convert models: pip install 'litevlm_ros[convert]'")

from litevlm_ros.config import PipelineConfig  # noqa: E402
from litevlm_ros.convert.engine_graph import write_engine_graph  # noqa: E402
from litevlm_ros.errors import ConfigError  # noqa: E402
from litevlm_ros.lab.world.calibration import calibration_data  # noqa: E402
from litevlm_ros.lab.world.render import render  # noqa: E402
from litevlm_ros.lab.world.scene import generate  # noqa: E402
from litevlm_ros.model_directory import TEXT, VISION  # noqa: E402
from litevlm_ros.pipeline import Pipeline  # noqa: E402
from litevlm_ros.types import View  # noqa: E402

CALIBRATION = partial(calibration_data, DEMO_MODEL)
QUESTIONS = ("What do you see?", "Is there a car?", "What is the weather?", "How many vehicles are there?")


def answers(model: Path) -> list[str]:
    pipeline = Pipeline.from_config(PipelineConfig(model, backend="onnxruntime"))
    said = []
    for seed in (1, 2, 3):
        encoded = pipeline.encode([View("front", render(generate(seed), "front"))])
        said += [pipeline.answer(encoded, question).text for question in QUESTIONS]
    pipeline.close()
    return said


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("vision", "text"), [("fp16", "fp16"), ("int8", "int8"), ("int8", "int4")])
def test_the_demo_model_still_sees(vision: str, text: str, tmp_path: Path) -> None:
    model = tmp_path / "demo"
    shutil.copytree(DEMO_MODEL, model)
    for part, precision in ((VISION, vision), (TEXT, text)):
        (model / f"{part}.onnx").unlink()
        graph = write_engine_graph(part, DEMO_MODEL, precision, model / f"{part}.onnx", CALIBRATION)
        assert bool(graph.calibration) == (precision != "fp16")
    same = np.mean([a == b for a, b in zip(answers(model), answers(DEMO_MODEL), strict=True)])
    assert same >= (1 if text == "fp16" else 0.75)


def test_embedding_head_and_patches_keep_their_precision(tmp_path: Path) -> None:
    file = tmp_path / f"{TEXT}.onnx"
    report = write_engine_graph(TEXT, DEMO_MODEL, "int8", file, CALIBRATION)
    types = {tensor.name: tensor.data_type for tensor in onnx.load(file).graph.initializer}
    assert types["layers.0.qkv.weight.quantized"] == onnx.TensorProto.INT8
    assert any("embed_tokens" in name or "lm_head" in name for name in types if types[name] == onnx.TensorProto.FLOAT16)
    assert report.calibration == "none needed: weights alone"
    assert report.notes[0].endswith("layers in int8")


def test_quantization_needs_calibration_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="precision is fp8, which needs calibration data"):
        write_engine_graph(TEXT, DEMO_MODEL, "fp8", tmp_path / "g.onnx")


def test_an_int4_vision_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="vision-precision is int4"):
        write_engine_graph(VISION, DEMO_MODEL, "int4", tmp_path / "g.onnx", CALIBRATION)
