"""transformers' row of the table on the tiny model, eager and on the CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from tiny_internvl import model_directory

from litevlm_ros.config import PipelineConfig, SamplingConfig
from litevlm_ros.lab.evaluation.table_accuracy import Given
from litevlm_ros.lab.evaluation.table_latency import Asked
from litevlm_ros.lab.evaluation.table_rows import RenderedViews, table_questions
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.types import FinishReason

torch = pytest.importorskip("torch", reason="compares with transformers: pip install 'litevlm_ros[convert]'")

from litevlm_ros.lab.benchmarking import transformers_answers  # noqa: E402
from litevlm_ros.lab.benchmarking.transformers_answers import (  # noqa: E402
    TransformersAnswers,
    compiled_transformers,
    time_transformers_answers,
)

ASKED = table_questions(0, 12)
EAGER: dict[str, Any] = {"way": "eager", "dtype": torch.float32, "device": "cpu"}


def pairs(text: str) -> list[Asked]:
    return [(asked, Given(text, asked.exercise.cameras, 24, 0.25, None)) for asked in ASKED]


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    pytest.importorskip("onnxruntime", reason="the pipeline that it is compared with runs on ONNX Runtime")
    pipeline = Pipeline.from_config(PipelineConfig(model_directory(), backend="onnxruntime", threads=1))
    pipeline.stop_ids = frozenset()
    yield pipeline
    pipeline.close()


def test_it_answers_as_the_pipeline_does_with_as_many_tokens_and_a_last_one(pipeline: Pipeline) -> None:
    replayed = pairs("abc")
    count = len(pipeline.tokenizer.encode("abc"))
    answers = TransformersAnswers(model_directory(), replayed, **EAGER)
    for pair in replayed[:3]:
        found = answers.answer(pair)
        wanted = pipeline.generate(RenderedViews().of(pair[0]), pair[0].question.text, SamplingConfig(count + 1))
        assert found.text == wanted.text
        assert found.tokens.prompt == wanted.tokens.prompt
        assert (found.tokens.visual, found.tokens.generated) == (24, count)
        assert found.finish_reason is FinishReason.STOP
        stages = found.timings
        parts = (stages.preprocess, stages.vision, stages.prefill, stages.decode)
        assert all(ms > 0 for ms in parts)
        assert stages.total == pytest.approx(sum(parts))


def test_long_answers_end_where_the_pipeline_ends_them() -> None:
    replayed = pairs("word " * 80)
    answer = TransformersAnswers(model_directory(), replayed, **EAGER).answer(replayed[0])
    assert answer.tokens.generated == 64
    assert answer.finish_reason is FinishReason.LENGTH


def test_the_row_has_the_means_of_its_questions() -> None:
    notes: list[str] = []
    row = time_transformers_answers(model_directory(), pairs("abc"), 5, notes.append, **EAGER)
    assert row.questions == 5
    assert row.tokens_per_view == 4
    assert row.select_ms == 0
    assert row.total_ms == pytest.approx(row.preprocess_ms + row.vision_ms + row.prefill_ms + row.decode_ms)
    assert row.decoded % 5 == 0
    assert "transformers" in row.backend
    assert "compiled in" in notes[0]


def test_errors_become_the_rows_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Triton is not there\nand a long trace")

    monkeypatch.setattr(transformers_answers, "TransformersStages", fail)
    row = time_transformers_answers(model_directory(), pairs("abc"), 5, print, **EAGER)
    assert row.obstacle == "transformers cannot run here (RuntimeError: Triton is not there)"
    assert not row.questions


def test_compiling_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_for_ever(*_: object, **__: object) -> None:
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(transformers_answers, "COMPILE_SECONDS", 1)
    monkeypatch.setattr(transformers_answers, "TransformersStages", compile_for_ever)
    row = time_transformers_answers(model_directory(), pairs("abc"), 5, print, **EAGER)
    assert "it was not compiled within 1 s; run the same command again" in row.obstacle


def test_the_table_gets_it_with_what_it_depends_on() -> None:
    reference = compiled_transformers(1)
    assert reference.title == "transformers, compiled"
    assert {"torch", "transformers"} < set(reference.packages)
