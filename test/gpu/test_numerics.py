"""Numbers that overflow, and the other precisions, on the demo model."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_bench import FEW_SCENES, answers, equal_share, loaded, prompt, read, say
from outliers import OUTLIER_LAYER, write_model_with_outlier

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import NotFiniteError
from litevlm_ros.lab.benchmarking.exact_stages import sample_tiles, sample_views
from litevlm_ros.lab.benchmarking.gpu_access import Gpu
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import PARTS, engine_name, sidecar_file
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.precision import PACKED_PRECISIONS, choose_precision

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]


def in_precision(model: Path, vision: str, text: str) -> list[str]:
    """Returns the answers of engines in these precisions to the questions about a few scenes."""
    return answers(model, FEW_SCENES, backend="tensorrt", vision_precision=vision, text_precision=text)


@pytest.mark.parametrize("precision", PACKED_PRECISIONS)
def test_packed_weights_answer_as_fp16_does(all_precisions: Path, fp16_answers: list[str], precision: str) -> None:
    vision, text = (choose_precision(part, precision, None).built for part in PARTS)
    found = in_precision(all_precisions, vision, text)
    assert equal_share(found, fp16_answers, f"{vision}/{text} and fp16") >= 0.9


@pytest.mark.parametrize(("vision", "text"), [("bf16", "bf16"), ("fp16", "bf16"), ("bf16", "fp16")])
def test_bf16_answers_as_fp16_does(all_precisions: Path, fp16_answers: list[str], vision: str, text: str) -> None:
    """bf16 has eight bits of precision where fp16 has eleven, so some choices differ. The parts may be mixed."""
    found = in_precision(all_precisions, vision, text)
    assert equal_share(found, fp16_answers, f"{vision}/{text} and fp16") >= 0.75


# --- huge numbers


def multiplied(demo: Path, target: Path, weight: str) -> Path:
    """Writes the demo model with a huge matrix, and the plain model's engines, which fit all weights of its shapes."""
    directory = write_model_with_outlier(demo, target, weight=weight)
    for part in PARTS:
        for precision in ("fp16", "bf16"):
            engine = demo / engine_name(part, precision)
            for file in (engine, sidecar_file(engine)):
                shutil.copy(file, directory)
    return directory


@pytest.fixture(scope="module")
def with_outlier(all_precisions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose sum over the layers passes fp16's largest number, which engines hold in fp32."""
    return multiplied(all_precisions, tmp_path_factory.mktemp("outlier") / "model", "mlp.down_proj.weight")


@pytest.fixture(scope="module")
def overflowing(all_precisions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in exact arithmetic, but what passes fp16's largest number lies between the MLP's two products.

    That is 1.7e5 or more for each single word, and engines in fp16 hold it in fp16.
    """
    return multiplied(all_precisions, tmp_path_factory.mktemp("overflowing") / "model", "mlp.up_proj.weight")


@pytest.fixture(scope="module")
def outlier_answers(with_outlier: Path) -> list[str]:
    """The answers with an outlier in bf16."""
    return in_precision(with_outlier, "fp16", "bf16")


def test_fp16_answers_with_an_outlier_as_bf16_does(with_outlier: Path, outlier_answers: list[str]) -> None:
    found = in_precision(with_outlier, "fp16", "fp16")
    assert not [text for text in found if "!!!" in text]
    assert len(set(found)) >= 3
    assert equal_share(found, outlier_answers, "with an outlier, fp16 and bf16") >= 0.75


def test_bf16_holds_what_overflows_in_fp16(overflowing: Path, outlier_answers: list[str]) -> None:
    found = in_precision(overflowing, "fp16", "bf16")
    assert not [text for text in found if "!!!" in text]
    assert equal_share(found, outlier_answers, "in bf16, a huge number in the MLP and one behind it") >= 0.75


@pytest.fixture(scope="module")
def pipeline(overflowing: Path) -> Iterator[Pipeline]:
    """The model that overflows, with both parts in fp16."""
    config = PipelineConfig(overflowing, backend="tensorrt", vision_precision="fp16", text_precision="fp16")
    with contextlib.closing(Pipeline.from_config(config)) as pipeline:
        yield pipeline


def test_an_overflow_in_fp16_is_an_error_that_names_the_fix(pipeline: Pipeline) -> None:
    for _ in range(2):
        with pytest.raises(NotFiniteError, match="--text-precision bf16") as raised:
            pipeline.generate(sample_views(1), "What do you see?")
        assert str(raised.value).startswith(f"layer {OUTLIER_LAYER} of the text decoder")
    say(f"{raised.value}")


def test_an_overflow_while_decoding_is_noticed(pipeline: Pipeline) -> None:
    """Each decode step tells of its own numbers, and keeps no bad rows."""
    text = pipeline.backend.text
    for _ in range(2):
        text.cache.truncate(0)
        with pytest.raises(NotFiniteError, match="--text-precision bf16"):
            list(text.decode_greedy(20, 0, 10))
        assert text.cache.length == 0


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
