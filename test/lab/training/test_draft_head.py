from __future__ import annotations

from pathlib import Path

import pytest
import torch

from litevlm_ros.config import PipelineConfig
from litevlm_ros.convert.checkpoint import load_draft_head
from litevlm_ros.lab.training.draft_features import (
    AnswerStates,
    Recorder,
    record_answers,
)
from litevlm_ros.lab.training.draft_head import HeadTraining
from litevlm_ros.lab.world.render import render
from litevlm_ros.lab.world.scene import generate
from litevlm_ros.lab.world.splits import draft_head_seeds
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.types import View

MODEL = demo_model_directory()


@pytest.fixture(scope="module")
def answers() -> list[AnswerStates]:
    return list(record_answers(MODEL, draft_head_seeds(1, seed=0), threads=1))


def test_answers_are_recorded_with_the_states_that_they_came_from(answers: list[AnswerStates]) -> None:
    text = HeadTraining(MODEL, seed=0).head.text
    captions = 0
    for answer in answers:
        assert answer.tokens.shape == answer.hidden.shape[:1]
        assert text.logits(answer.hidden.float()).argmax(-1).tolist() == answer.tokens.tolist()
        captions += len(answer.tokens) > 8
    assert len(answers) == 7 * 3
    assert captions >= 7


def test_the_pipeline_answers_as_ever_while_it_is_recorded() -> None:
    view = View("front", render(generate(5), "front"))
    plain, recorded = (
        Pipeline.from_config(PipelineConfig(MODEL, backend="onnxruntime", threads=1), drafts)
        for drafts in (None, Recorder())
    )
    assert recorded.generate([view], "Describe the scene.").text == plain.generate([view], "Describe the scene.").text


def test_training_learns_and_leaves_the_decoder_alone(answers: list[AnswerStates], tmp_path: Path) -> None:
    training = HeadTraining(MODEL, seed=1)
    before = {name: value.clone() for name, value in training.head.text.state_dict().items()}
    untrained = training.accuracy(answers)
    lines: list[str] = []
    training.run(answers, 30, lines.append)
    assert "step 30 of 30" in lines[-1]
    assert training.accuracy(answers)[0] > untrained[0] + 0.1
    for name, value in training.head.text.state_dict().items():
        assert torch.equal(value, before[name]), name
    training.save(tmp_path)
    for part in ("text_decoder", "vision_encoder"):
        (tmp_path / part).symlink_to(MODEL / part)
    loaded = load_draft_head(tmp_path)
    torch.testing.assert_close(loaded.fuse.weight, training.head.fuse.weight.detach(), atol=1e-3, rtol=1e-3)


def test_the_same_seed_gives_the_same_head(answers: list[AnswerStates]) -> None:
    heads = []
    for seed in (1, 1, 2):
        training = HeadTraining(MODEL, seed)
        training.run(answers, 2, lambda line: None)
        heads.append(training.head.fuse.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_what_passes_learn_is_what_drafting_does(answers: list[AnswerStates]) -> None:
    """The second pass at a place reads the state guessed at the place before, with that answer only in sight."""
    training = HeadTraining(MODEL, seed=0)
    head = training.head
    long = max(answers, key=lambda answer: len(answer.tokens))
    none = torch.zeros(0, head.text.config.num_kv_heads, head.text.config.head_dim)
    with torch.no_grad():
        alone = head(long.tokens[:3], long.hidden[:3].float(), torch.tensor([0]), none, none)[1]
        from litevlm_ros.lab.training.draft_head import _Batch

        batch = _Batch.of([answers[1], long], training._group)
        first, second, _ = training._passes(batch)
        start = len(answers[1].tokens) - 1
        torch.testing.assert_close(first[start + 2], alone[0], atol=1e-4, rtol=1e-4)
        states = torch.cat((long.hidden[:1].float(), first[start : start + 2]))
        again = head(long.tokens[:3], states, torch.tensor([0]), none, none)[1]
        torch.testing.assert_close(second[start + 2], again[0], atol=1e-4, rtol=1e-4)
