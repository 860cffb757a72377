"""Numbers that overflow, and the other precisions, on the demo model."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_bench import answers, build, equal_share, loaded, prompt, read, say
from outliers import write_model_with_outlier

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import NotFiniteError
from litevlm_ros.lab.benchmarking.exact_stages import sample_tiles, sample_views
from litevlm_ros.lab.benchmarking.gpu_access import Gpu
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import PARTS, TEXT, engine_name, sidecar_file
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.precision import PACKED_PRECISIONS, choose_precision

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

SMALL = ("--max-tiles", "1", "--max-context", "256")
SCENES = 5


@pytest.fixture(scope="module")
def reference(demo: Path) -> list[str]:
    return answers(demo, SCENES, backend="tensorrt", vision_precision="fp16", text_precision="fp16")


@pytest.fixture(scope="module")
def demo_bf16(demo: Path) -> Path:
    """The demo model with engines in bf16 beside those in fp16."""
    build(demo, "--precision", "bf16", *SMALL)
    return demo


@pytest.mark.parametrize("precision", PACKED_PRECISIONS)
def test_packed_weights_answer_as_fp16_does(demo: Path, reference: list[str], precision: str) -> None:
    build(demo, "--precision", precision, *SMALL)
    vision, text = (choose_precision(part, precision, None).built for part in PARTS)
    found = answers(demo, SCENES, backend="tensorrt", vision_precision=vision, text_precision=text)
    assert equal_share(found, reference, f"{vision}/{text} and fp16") >= 0.9


def test_bf16_answers_as_fp16_does(demo_bf16: Path, reference: list[str]) -> None:
    """bf16 has eight bits of precision where fp16 has eleven, so some choices differ."""
    found = answers(demo_bf16, SCENES, backend="tensorrt", vision_precision="bf16", text_precision="bf16")
    assert equal_share(found, reference, "bf16 and fp16") >= 0.75


def test_parts_of_different_types_work_together(demo_bf16: Path, reference: list[str]) -> None:
    for vision, text in (("fp16", "bf16"), ("bf16", "fp16")):
        found = answers(demo_bf16, SCENES, backend="tensorrt", vision_precision=vision, text_precision=text)
        assert equal_share(found, reference, f"{vision}/{text} and fp16") >= 0.75


@pytest.fixture(scope="module")
def with_outlier(demo_bf16: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model with a huge matrix, and the plain model's engines, which fit all weights of its shapes."""
    directory = write_model_with_outlier(demo_bf16, tmp_path_factory.mktemp("outlier") / "model")
    for part in PARTS:
        for precision in ("fp16", "bf16"):
            engine = demo_bf16 / engine_name(part, precision)
            for file in (engine, sidecar_file(engine)):
                shutil.copy(file, directory)
    return directory


@contextlib.contextmanager
def pipeline_of(model: Path, precision: str) -> Any:
    config = PipelineConfig(model, backend="tensorrt", vision_precision="fp16", text_precision=precision)
    with contextlib.closing(Pipeline.from_config(config)) as pipeline:
        yield pipeline


def test_an_overflow_in_fp16_is_an_error_that_names_the_fix(with_outlier: Path) -> None:
    with pipeline_of(with_outlier, "fp16") as pipeline:
        for _ in range(2):
            with pytest.raises(NotFiniteError, match="--text-precision bf16") as raised:
                pipeline.generate(sample_views(1), "What do you see?")
        say(f"{raised.value}")
        assert "text decoder" in str(raised.value)


def test_bf16_holds_what_overflows_in_fp16(with_outlier: Path) -> None:
    with pipeline_of(with_outlier, "bf16") as pipeline:
        answer = pipeline.generate(sample_views(1), "What do you see?")
    say(f"with an outlier, in bf16: {answer.text!r}")
    assert "!!!" not in answer.text


def test_what_was_not_finite_leaves_no_trace(demo: Path, gpu: Gpu) -> None:
    """Later answers are equal to the last bit, though the same cache rows held infinite numbers."""
    model = ModelConfig.from_directory(demo)
    pictures, ids = sample_tiles(1, model.vision.image_size), prompt(model, 100)
    with loaded(demo, vision_precision="fp16", text_precision="fp16") as backend:
        clean, poisoned = backend.vision.encode(pictures), backend.vision.encode(pictures)

        def answer() -> tuple[Any, list[int]]:
            output = read(backend, model, ids, clean)
            logits = output.logits().copy()
            return logits, list(backend.text.decode_greedy(int(output.next_tokens[-1]), len(ids), 40))

        logits, tokens = answer()
        gpu.overwrite(poisoned, np.float16(np.inf))
        for kept in (0, 20):
            backend.text.cache.truncate(0)
            if kept:
                backend.text.forward(ids[-kept:], np.arange(kept))
            with pytest.raises(NotFiniteError):
                backend.text.forward(ids, kept + np.arange(len(ids)), poisoned)
            assert backend.text.cache.length == kept
            again, tokens_again = answer()
            np.testing.assert_array_equal(again, logits)
            assert tokens_again == tokens


def test_an_overflow_while_decoding_is_noticed(with_outlier: Path) -> None:
    """The prompt is read in bf16's range; each decode step then tells of its own numbers."""
    model = ModelConfig.from_directory(with_outlier)
    with loaded(with_outlier, vision_precision="fp16", text_precision="fp16") as backend:
        steps = backend.text.decode_greedy(20, 0, 10)
        with pytest.raises(NotFiniteError, match="bf16"):
            list(steps)
        assert backend.text.cache.length == 0, f"{TEXT} of {model.text.num_layers} layers keeps no bad rows"
