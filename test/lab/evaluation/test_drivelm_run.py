from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from drivelm_example import DriveLMExample, write_example

from litevlm_ros.errors import ContextOverflowError
from litevlm_ros.images.decoding import as_rgb
from litevlm_ros.lab.evaluation.drivelm import drivelm_json, drivelm_table
from litevlm_ros.lab.evaluation.drivelm_file import KeyFrame, LeftOut, read_key_frames
from litevlm_ros.lab.evaluation.drivelm_images import ImageFolder, read_views, with_images
from litevlm_ros.lab.evaluation.drivelm_objects import STITCHED_FORM, StitchedObjects, Wording
from litevlm_ros.lab.evaluation.drivelm_run import Asked, ask
from litevlm_ros.lab.evaluation.drivelm_scores import points
from litevlm_ros.types import Answer, FinishReason, Timings, TokenCounts, View
from litevlm_ros.vision.view_selection import LexicalSelector


class Knowing:
    """Knows the answers by the pictures of six views, and says "no" to fewer."""

    def __init__(self, frames: Sequence[KeyFrame], most_views: int = 6) -> None:
        self.truths = {
            (shown(read_views(frame)), question.text): question.answer
            for frame in frames
            for question in frame.questions
        }
        self.most_views = most_views
        self.asked: list[tuple[str, int]] = []

    def generate(self, views: Sequence[View], question: str, *, all_views: bool) -> Answer:
        assert all_views, "the views are chosen already"
        assert all(view.frame is None for view in views), "each question is about new frames"
        if len(views) > self.most_views:
            raise ContextOverflowError("too long")
        self.asked.append((question, len(views)))
        text = self.truths[shown(views), question] if len(views) == 6 else "no"
        reason = FinishReason.LENGTH if len(text) > 40 else FinishReason.STOP
        timings = Timings(vision=10.0 * len(views), select=1.0, total=10.0 * len(views) + 1)
        cameras = tuple(view.camera for view in views)
        return Answer(text, question, cameras, reason, TokenCounts(9, 64 * len(views), 1), timings)


def shown(views: Sequence[View]) -> int:
    """Returns a number that tells one picture of the first camera from another."""
    return int(as_rgb(views[0].image).sum())


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> DriveLMExample:
    return write_example(tmp_path_factory.mktemp("drivelm"))


def frames_of(example: DriveLMExample) -> list[KeyFrame]:
    left_out = LeftOut()
    frames = with_images(read_key_frames(example.file, left_out), ImageFolder(example.images), example.file, left_out)
    assert not left_out.counts
    return frames


def put(pipeline: Any, frames: Sequence[KeyFrame], left_out: LeftOut | None = None) -> Asked:
    return ask(pipeline, LexicalSelector(), Wording(), frames, left_out or LeftOut(), lambda line: None)


def test_views_are_chosen_by_the_words_and_by_the_objects_of_a_question(example: DriveLMExample) -> None:
    frames = frames_of(example)
    assert [len(frame.questions) for frame in frames] == [12, 12, 12]
    pipeline = Knowing(frames)
    asked = put(pipeline, frames)
    texts = {question.id: question.text for frame in frames for question in frame.questions}
    kept = {texts[name]: answer.cameras for name, answer in asked.chosen.answers.items()}
    moves = [cameras for text, cameras in kept.items() if text.startswith("In which way does <c1,CAM_FRONT,")]
    assert moves
    assert set(moves) == {("front",)}
    everything = [text for text in texts.values() if text.startswith(("List", "In which order", "How will the car"))]
    assert all(len(kept[text]) == 6 for text in everything), "offered answers such as 'to the left' choose no view"
    assert all(len(answer.cameras) == 6 for answer in asked.all_views.answers.values())
    assert 1 < asked.chosen.means()["views"] < 5 < asked.all_views.means()["views"] == 6


def test_scores_means_and_losses_are_those_of_both_runs(example: DriveLMExample) -> None:
    frames = frames_of(example)
    asked = put(Knowing(frames), frames)
    figures = drivelm_json(asked)
    whole, chosen = figures["runs"]["all_views"], figures["runs"]["chosen_views"]
    assert whole["accuracy"]["share"] == whole["match"]["f1"] == 1
    assert whole["accuracy"]["of"] == whole["accuracy_all"]["of"] == 30
    assert 0 < chosen["accuracy"]["share"] < 1
    assert figures["points_lost"][0] == pytest.approx(100 * (1 - chosen["accuracy_all"]["share"]))
    assert whole["means"]["vision"] == 60
    assert chosen["means"]["vision"] == pytest.approx(10 * chosen["means"]["views"])
    assert chosen["means"]["select"] > whole["means"]["select"] == 1, "choosing views takes time"
    assert whole["cut"] == sum(len(answer.text) > 40 for answer in asked.all_views.answers.values()) > 0
    assert len(figures["answers"]) == 36
    assert figures["answers"][0]["given"]["all_views"]["text"] == figures["answers"][0]["answer"]
    table = drivelm_table(asked)
    assert "| all views | 100.0 (88.6 to 100.0, of 30) | " in table
    assert table.count("\n") == 3


def test_where_all_views_are_kept_one_answer_counts_twice_and_each_number_of_views_is_warmed_up(
    example: DriveLMExample,
) -> None:
    frames = frames_of(example)
    pipeline = Knowing(frames)
    asked = put(pipeline, frames)
    fewer = [answer for answer in asked.chosen.answers.values() if len(answer.cameras) < 6]
    sizes = {len(answer.cameras) for answer in fewer} | {6}
    assert len(pipeline.asked) == 36 + len(fewer) + len(sizes)


class StitchedKnowing(Knowing):
    """Knows the answers about one key frame, from any views, and names objects as in one stitched picture."""

    def generate(self, views: Sequence[View], question: str, *, all_views: bool) -> Answer:
        objects, told = StitchedObjects(views), question.removesuffix(" In thousandths!")
        self.asked.append((told, len(views)))
        truths = {objects.to_thousandths(text): answer for (_, text), answer in self.truths.items()}
        text = objects.to_thousandths(truths[told])
        cameras = tuple(view.camera for view in views)
        return Answer(text, question, cameras, FinishReason.STOP, TokenCounts(9, 64, 1), Timings())


def test_a_model_that_names_objects_in_the_stitched_picture_is_scored_in_pixels(example: DriveLMExample) -> None:
    [frame, *_] = frames_of(example)
    frames = [replace(frame, questions=frame.questions[:3])]
    pipeline: Any = StitchedKnowing(frames)
    wording = Wording(STITCHED_FORM, "In thousandths!")
    asked = ask(pipeline, LexicalSelector(), wording, frames, LeftOut(), lambda line: None)
    for run in (asked.all_views, asked.chosen):
        scores = run.scores(asked.frames)
        assert (scores.accuracy, scores.f1) == ([True], [1.0])
    told = {text for text, _ in pipeline.asked}
    assert any(re.match(r"In which way does <c1,CAM_\w+,\[[0-9]+, [0-9]+\]> move", text) for text in told)
    assert not any(points(text) for text in told)
    assert {count for _, count in pipeline.asked} == {1, 6}, "a question about an object is asked of its view alone"


def test_what_does_not_fit_is_counted_and_wrong(example: DriveLMExample) -> None:
    frames = frames_of(example)
    asked = put(Knowing(frames, most_views=5), frames)
    assert asked.all_views.too_long == 36
    assert asked.all_views.answers == {}
    assert asked.all_views.means()["views"] is None
    assert asked.all_views.scores(frames).all_accuracy == [False] * 30
    assert 0 < asked.chosen.too_long == 36 - len(asked.chosen.answers)
    assert "| all views | 0.0 (" in drivelm_table(asked)


def test_a_damaged_picture_leaves_out_its_key_frame(tmp_path: Path) -> None:
    example = write_example(tmp_path)
    frames = frames_of(example)
    pipeline = Knowing(frames)
    damaged = Path(frames[0].images["back"])
    damaged.write_bytes(damaged.read_bytes()[:2000])
    left_out = LeftOut()
    asked = put(pipeline, frames, left_out)
    assert [frame.id for frame in asked.frames] == [frame.id for frame in frames[1:]]
    assert "key frames with a picture that cannot be read: 1" in left_out.lines()[0]
    assert damaged.name in left_out.lines()[0]


def test_progress_is_told(example: DriveLMExample, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 10_000, 20))
    monkeypatch.setattr(
        "litevlm_ros.lab.evaluation.drivelm_run.time", SimpleNamespace(perf_counter=lambda: float(next(seconds)))
    )
    frames, lines = frames_of(example), list[str]()
    ask(Knowing(frames), LexicalSelector(), Wording(), frames, LeftOut(), lines.append)  # type: ignore[arg-type]
    assert [line.split(",")[0] for line in lines] == ["DriveLM: 12 of 36 questions", "DriveLM: 24 of 36 questions"]


def test_the_example_names_objects_in_pixels_of_its_pictures(example: DriveLMExample) -> None:
    for frame in frames_of(example):
        objects = points(frame.questions[0].answer)
        assert len(objects) >= 3
        assert all(0 < x < 1600 and 0 < y < 900 for x, y in objects)
