from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from package_files import DEMO_MODEL
from scripted_backend import make_backend

from litevlm_ros.config import PipelineConfig, ReuseConfig, SpeculationConfig, TokenSelectionConfig, ViewSelectionConfig
from litevlm_ros.lab.evaluation.replay import ReplayingDecoder, ReplayingModel, loading
from litevlm_ros.lab.evaluation.table_accuracy import Given
from litevlm_ros.lab.evaluation.table_rows import RenderedViews, table_questions
from litevlm_ros.text.drafts import NGramDrafts
from litevlm_ros.text.speculator import Speculator

WORDS = range(10, 30)
ANSWER = [11, 12, 13, 14, 11, 12, 13, 14, 2]


def decoder() -> ReplayingDecoder:
    return ReplayingDecoder(make_backend(40, 4, 200, WORDS).text)


def test_it_says_the_answer_step_by_step_while_the_other_reads() -> None:
    text = decoder()
    for prompt in (6, 9):
        text.cache.truncate(0)
        text.say(ANSWER)
        # Positions have a gap, as where visual tokens were dropped.
        first = text.forward(np.arange(10, 10 + prompt), np.array([*range(prompt - 1), 20]))
        assert first.next_tokens.tolist() == ANSWER[:1]
        assert first.logits().shape == (1, 40)
        second = text.forward(np.array(ANSWER[:1]), np.array([21]))
        assert second.next_tokens.tolist() == ANSWER[1:2]
        assert text.cache.length == prompt + 1
        assert list(text.decode_greedy(ANSWER[1], 22, 9)) == [*ANSWER[2:], 2, 2]


def test_drafts_are_right_where_they_are_the_answers_tokens() -> None:
    text = decoder()
    text.say(ANSWER)
    text.forward(np.arange(10, 16), np.arange(6))
    checked = text.forward(np.array([11, 12, 29, 28]), np.array([6, 7, 8, 9]), num_logits=4)
    assert checked.next_tokens.tolist() == ANSWER[1:5]


def test_speculation_comes_to_the_same_answer() -> None:
    text = decoder()
    speculator = Speculator(text, NGramDrafts(), 4)
    for _ in range(2):
        text.cache.truncate(0)
        text.say(ANSWER)
        speculator.begin([10, 15], topic="the same")
        first = speculator.start(text.forward(np.array([10, 15]), np.array([0, 1])))
        said = [first]
        for token in speculator.decode(first, 2, 20):
            said.append(token)
            if token == 2:
                break
        speculator.finish(complete=True)
        assert said == ANSWER


def test_the_rest_is_the_other_decoders() -> None:
    backend = make_backend(40, 4, 200, WORDS)
    text = ReplayingDecoder(backend.text)
    text.prepare([1, 2])
    assert backend.text.prepared == (1, 2)
    assert (text.most_logits, text.gives_hidden) == (16, False)
    assert text.cache is backend.text.cache


def test_settings_of_the_pipeline_need_no_other_model() -> None:
    config = PipelineConfig(DEMO_MODEL, threads=1)
    changed = replace(
        config,
        view_selection=ViewSelectionConfig("learned"),
        token_selection=TokenSelectionConfig("random"),
        speculation=SpeculationConfig("ngram"),
        reuse=ReuseConfig(0),
    )
    assert loading(changed) == loading(config)
    assert loading(replace(config, threads=2)) != loading(config)
    assert loading(replace(config, text_precision="fp8")) != loading(config)


def test_several_pipelines_of_one_model_repeat_answers_about_chosen_views() -> None:
    pytest.importorskip("onnxruntime", reason="the demo model runs on ONNX Runtime")
    config = PipelineConfig(DEMO_MODEL, backend="onnxruntime", threads=1, reuse=ReuseConfig(0))
    asked = table_questions(0, 2)[1]
    given = Given("The red car is on the left.", ("front", "back"), 0, 0, None)
    model = ReplayingModel(config, RenderedViews())
    assert "ONNX Runtime" in model.description
    assert model.load_seconds > 0
    for method, tokens in (("off", 128), ("diversity", 76), ("off", 128)):
        pipeline = model.pipeline(replace(config, token_selection=TokenSelectionConfig(method, 0.6)))
        answer = pipeline.answer(asked, given)
        assert answer.text == given.text
        assert answer.cameras == given.cameras
        assert answer.tokens.visual == tokens
        assert answer.reuse.tokens == 0
    model.close()


def test_drafts_do_not_learn_from_answers_without_drafts() -> None:
    pytest.importorskip("onnxruntime", reason="the demo model runs on ONNX Runtime")
    config = PipelineConfig(DEMO_MODEL, backend="onnxruntime", threads=1, speculation=SpeculationConfig("ngram"))
    asked = table_questions(0, 2)[0]
    given = Given("A clear day. A red car ahead, a blue bus to the left, a person behind.", ("front",), 0, 0, None)
    model = ReplayingModel(config, RenderedViews())
    pipeline = model.pipeline(config)
    assert pipeline.answer_without_drafts(asked, given).speculation.drafted == 0
    assert pipeline.answer(asked, given).speculation.accepted < 5
    accepted = (pipeline.answer(asked, given).speculation.accepted for _ in range(10))
    assert any(count > 5 for count in accepted), "the answer that it has learned meanwhile"
    model.close()
