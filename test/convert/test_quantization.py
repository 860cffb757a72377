"""A whole part in few bits, on ONNX Runtime, against the part in fp16."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from package_files import DEMO_MODEL

torch = pytest.importorskip("torch", reason="torch is needed to convert models: pip install 'litevlm_ros[convert]'")

from litevlm_ros.config import PipelineConfig  # noqa: E402
from litevlm_ros.convert.quantization import QuantizationReport, write_quantized_graph  # noqa: E402
from litevlm_ros.errors import ConfigError  # noqa: E402
from litevlm_ros.lab.world.calibration import calibration_data  # noqa: E402
from litevlm_ros.lab.world.render import render  # noqa: E402
from litevlm_ros.lab.world.scene import generate  # noqa: E402
from litevlm_ros.model_directory import TEXT, VISION  # noqa: E402
from litevlm_ros.pipeline import Pipeline  # noqa: E402
from litevlm_ros.types import View  # noqa: E402

CALIBRATION = partial(calibration_data, DEMO_MODEL)
QUESTIONS = ("What do you see?", "Is there a car?", "What is the weather?", "How many vehicles are there?")


@dataclass(frozen=True)
class Written:
    file: Path
    report: QuantizationReport


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Written]:
    """Writes the demo model's graph of a part in a precision, once."""
    directory = tmp_path_factory.mktemp("graphs")

    @functools.cache
    def write(part: str, precision: str) -> Written:
        file = directory / f"{part}_{precision}.onnx"
        return Written(file, write_quantized_graph(part, DEMO_MODEL, precision, file, CALIBRATION))

    return write


def answers(model: Path) -> list[str]:
    pipeline = Pipeline.from_config(PipelineConfig(model, backend="onnxruntime"))
    said = []
    for seed in (1, 2, 3):
        encoded = pipeline.encode([View("front", render(generate(seed), "front"))])
        said += [pipeline.answer(encoded, question).text for question in QUESTIONS]
    pipeline.close()
    return said


@pytest.fixture(scope="module")
def expected() -> list[str]:
    return answers(DEMO_MODEL)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("vision", "text"), [("int8", "int8"), ("int8", "int4")])
def test_the_demo_model_still_sees(
    vision: str, text: str, written: Callable[[str, str], Written], expected: list[str], tmp_path: Path
) -> None:
    model = tmp_path / "demo"
    shutil.copytree(DEMO_MODEL, model)
    for part, precision in ((VISION, vision), (TEXT, text)):
        graph = written(part, precision)
        shutil.copyfile(graph.file, model / f"{part}.onnx")
        assert graph.report.calibration
    same = np.mean([a == b for a, b in zip(answers(model), expected, strict=True)])
    assert same >= 0.75


@pytest.mark.slow
def test_embedding_head_and_patches_keep_their_precision(written: Callable[[str, str], Written]) -> None:
    graph = written(TEXT, "int8")
    types = {tensor.name: tensor.data_type for tensor in onnx.load(graph.file).graph.initializer}
    assert types["layers.0.qkv.weight.quantized"] == onnx.TensorProto.INT8
    assert any("embed_tokens" in name or "lm_head" in name for name in types if types[name] == onnx.TensorProto.FLOAT16)
    assert graph.report.calibration == "none needed: weights alone"
    assert graph.report.notes[0].endswith("layers in int8")


def test_quantization_needs_calibration_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="precision is fp8, which needs calibration data"):
        write_quantized_graph(TEXT, DEMO_MODEL, "fp8", tmp_path / "g.onnx", None)


def test_an_int4_vision_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="vision-precision is int4"):
        write_quantized_graph(VISION, DEMO_MODEL, "int4", tmp_path / "g.onnx", CALIBRATION)
