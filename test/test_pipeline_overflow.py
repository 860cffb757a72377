"""A model whose numbers overflow for some questions: those are refused, and all others answered as if they were alone.

The demo model with an outlier, in fp16 on ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from outliers import write_model_with_outlier, write_nan
from overflowing_demo import BAD_WORDS, SAMPLING, open_pipeline, overflowing_model, questions
from shared_files import made_once

from litevlm_ros.config import PipelineConfig, SpeculationConfig
from litevlm_ros.errors import NotFiniteError
from litevlm_ros.model_directory import TEXT, VISION, WEIGHTS, demo_model_directory
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.types import View

BAD = "not finite"


def open_model(model: Path, precision: str) -> Pipeline:
    config = PipelineConfig(model, threads=1, vision_precision=precision, text_precision=precision)
    return Pipeline.from_config(config)


def ask(pipeline: Pipeline, view: View, question: str, **sampling: Any) -> str:
    """The answer's text, or BAD."""
    try:
        return pipeline.generate([view], question, replace(SAMPLING, **sampling)).text
    except NotFiniteError:
        return BAD


def is_bad(text: str) -> bool:
    return any(word in text for word in BAD_WORDS[:3])


@pytest.fixture(scope="module")
def alone() -> list[str]:
    """The answers that each of the 30 questions gets from a pipeline that never had a bad one.

    Whether a question is bad is found by a pipeline that was asked nothing before.
    """
    asked = questions()
    made_once("overflow_alone", lambda root: (root / "answers").write_text("\0".join(_alone(asked))))
    return (made_once("overflow_alone", lambda root: None) / "answers").read_text().split("\0")


def _alone(asked: list[tuple[View, str]]) -> Iterator[str]:
    sound = open_pipeline()
    for view, question in asked:
        text = ask(sound, view, question)
        if text == BAD:
            sound = open_pipeline()
            assert ask(sound, view, question) == BAD, "a fresh pipeline answers it"
            sound = open_pipeline()
        yield text


def test_bad_questions_between_good_ones_change_no_answer(alone: list[str]) -> None:
    """In several rounds, in both orders: every answer is byte-equal to that of a run without bad questions."""
    assert {text == BAD for (_, question), text in zip(questions(), alone, strict=True) if is_bad(question)} == {True}
    assert 10 < alone.count(BAD) <= 20, "no answer with a bad word, or only such"
    assert len({text for text in alone if text != BAD}) > 3, "answers that are all alike compare nothing"
    pipeline = open_pipeline()
    places = list(range(len(alone)))
    for order in (places, places[::-1], places, places[::-1]):
        answers = {place: ask(pipeline, *questions()[place]) for place in order}
        assert [answers[place] for place in places] == alone


def test_the_cache_is_clean_after_a_bad_question(alone: list[str]) -> None:
    pipeline = open_pipeline()
    cache: Any = pipeline.backend.text.cache
    for (view, question), text in zip(questions(), alone, strict=True):
        ask(pipeline, view, question)
        assert np.isfinite(cache.past(cache.capacity)).all()
        # Nothing is known of the prefix that a bad question has read, so the next question reads it anew.
        again = pipeline.generate([view], question, SAMPLING) if text != BAD else None
        assert again is None or again.reuse.tokens > 0


@pytest.mark.parametrize("sampling", [{"temperature": 0.9, "seed": 3}, {"temperature": 0.0, "repetition_penalty": 1.2}])
def test_sampled_answers_are_refused_too(alone: list[str], sampling: dict[str, Any]) -> None:
    pipeline, bad = open_pipeline(), alone.index(BAD)
    good = next(place for place, text in enumerate(alone) if text != BAD)
    before = ask(pipeline, *questions()[good], **sampling)
    assert ask(pipeline, *questions()[bad], **sampling) == BAD
    assert ask(pipeline, *questions()[good], **sampling) == before


@pytest.mark.parametrize("source", ["ngram", "off"])
def test_drafts_neither_hide_nor_cause_it(alone: list[str], source: str) -> None:
    """The second time a question comes, its answer is drafted from the first one."""
    pipeline = open_pipeline(speculation=SpeculationConfig(source=source))
    for _ in range(2):
        assert [ask(pipeline, view, question) for view, question in questions()] == alone


def test_what_a_client_has_heard_before_ends_with_the_word_that_overflows(alone: list[str]) -> None:
    """That word was chosen from good numbers, and reading it gives bad ones, from which nothing is chosen."""
    pipeline, heard = open_pipeline(), 0
    for (view, question), text in zip(questions(), alone, strict=True):
        if text == BAD:
            pieces: list[str] = []
            with pytest.raises(NotFiniteError):
                pipeline.generate([view], question, SAMPLING, on_text=lambda piece, count, to=pieces: to.append(piece))
            assert is_bad(question) == (not pieces)
            assert not pieces or pieces[-1].strip() in BAD_WORDS
            heard += len(pieces)
    assert heard, "no answer had begun"


def test_the_error_names_layer_precision_and_fix() -> None:
    """The values are infinite in the cache only: ONNX Runtime computes the logits in fp32, and they are finite."""
    with pytest.raises(NotFiniteError) as caught:
        open_pipeline().generate([questions()[0][0]], f"Where are {BAD_WORDS[0]}?", SAMPLING)
    text = str(caught.value)
    assert text.startswith("layer 0 of the text decoder: its attention or MLP gives numbers beyond what fp16 holds")
    assert "`ros2 run litevlm_ros build_engines --text-precision bf16`" in text
    assert "text_precision: bf16" in text


def test_fp32_answers_all_of_them() -> None:
    pipeline = open_pipeline("auto")
    assert BAD not in [ask(pipeline, view, question) for view, question in questions()]


@pytest.mark.parametrize("layer", [0, 3])
def test_one_down_proj_times_6e4(layer: int, tmp_path: Path) -> None:
    """fp32 answers, and fp16 refuses, whichever layer it is."""
    model = write_model_with_outlier(overflowing_model(), tmp_path / "model", layer=layer)
    assert ask(open_model(model, "auto"), *questions()[0]) != BAD
    with pytest.raises(
        NotFiniteError, match=r"^the text decoder: its logits are infinite or NaN, so a layer gives numb"
    ):
        open_model(model, "fp16").generate([questions()[0][0]], questions()[0][1], SAMPLING)


def test_damaged_weights_in_fp32_name_the_layer_and_the_download(tmp_path: Path) -> None:
    model = write_model_with_outlier(demo_model_directory(), tmp_path / "model", 1.0)
    write_nan(model / TEXT / WEIGHTS, "layers.1.mlp.down_proj.weight")
    with pytest.raises(NotFiniteError) as caught:
        open_model(model, "auto").generate([questions()[0][0]], questions()[0][1], SAMPLING)
    assert str(caught.value).startswith("layer 1 of the text decoder: the numbers of its attention or MLP are infinite")
    assert "in fp32" in str(caught.value)
    assert "download it again (`ros2 run litevlm_ros download_models`)" in str(caught.value)


def test_a_damaged_vision_encoder_is_refused_and_no_frame_is_kept(tmp_path: Path) -> None:
    model = write_model_with_outlier(demo_model_directory(), tmp_path / "model", 1.0)
    write_nan(model / VISION / WEIGHTS, "mlp.fc2.weight")
    pipeline = open_model(model, "auto")
    for _ in range(2):
        with pytest.raises(NotFiniteError, match=r"^the vision encoder: its visual tokens are infinite or NaN in fp32"):
            pipeline.generate([questions()[0][0]], questions()[0][1], SAMPLING)


def test_the_demo_model_itself_never_overflows() -> None:
    pipeline = Pipeline.from_config(PipelineConfig(demo_model_directory(), threads=1))
    assert all(ask(pipeline, view, question) != BAD for view, question in questions()[::7])
