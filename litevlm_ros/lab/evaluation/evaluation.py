"""An evaluation: a model and two baselines on the same held-out exercises, as a table and as figures for JSON."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from litevlm_ros.lab.evaluation.answering import Look, Reply, answer, answer_by_kind, blind, commonest_answers, seeing
from litevlm_ros.lab.evaluation.scores import NOTHING, SPLITS, Score, Share, is_right, score
from litevlm_ros.lab.world.exercises import CAPTION, Exercise, held_out_exercises, training_exercises
from litevlm_ros.machine import describe
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.types import Notify

TRAINING_SCENES = 400
"""Number of scenes, from training's seed 0 on, that give the majority baseline its answers."""

_SECONDS_BETWEEN_NOTES = 10.0

Figures = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """Replies of the model, and of each baseline by its name, to the same questions. `seconds` is what all took."""

    replies: Sequence[Reply]
    baselines: Mapping[str, Sequence[Reply]]
    seconds: float

    def mean_ms(self) -> dict[str, float]:
        """Returns mean wall times of the model in ms.

        A caption is asked for first, so its time includes reading the views in prefill; short answers reuse them.
        """
        first = [reply for reply in self.replies if reply.question.kind == CAPTION]
        short = [reply for reply in self.replies if reply.question.kind != CAPTION]
        encoding = [(len(r.exercise.cameras), r.timings.preprocess + r.timings.vision) for r in first]
        return {
            "encoding_one_view": fmean(ms for views, ms in encoding if views == 1),
            "encoding_six_views": fmean(ms for views, ms in encoding if views > 1),
            "caption": fmean(r.timings.prefill + r.timings.decode for r in first),
            "short_answer": fmean(r.timings.prefill + r.timings.decode for r in short),
        }

    def json(self) -> Figures:
        """Returns every figure with its counts and interval, the baselines beside them, and each wrong reply."""
        seeds = [self.replies[0].exercise.scene.seed, self.replies[-1].exercise.scene.seed]
        return {
            **_with_splits(self.replies),
            "baselines": {name: _with_splits(given) for name, given in self.baselines.items()},
            "scenes": 1 + seeds[1] - seeds[0],
            "seeds": {"evaluated": seeds, "majority": [0, TRAINING_SCENES - 1]},
            "seconds": self.seconds,
            "mean_ms": self.mean_ms(),
            "mistakes": [_mistake(reply) for reply in self.replies if not is_right(reply)],
        }

    def table(self) -> str:
        """Returns shares in percent: a row for each figure, a column for each part of the evaluation and baseline."""
        whole = score(self.replies)
        parts = {name.replace("_", " "): score(filter(belongs, self.replies)) for name, belongs in SPLITS.items()}
        baselines = {name: score(given) for name, given in self.baselines.items()}
        columns = [*parts.values(), *baselines.values()]
        titles = "".join(f"{name:>10}" for name in (*parts, *baselines))
        lines = [f"{'share in %':32}{'of':>6}{'right':>7}{'95 % interval':>15}{titles}"]
        for title, figure in _rows(whole):
            share = figure(whole)
            low, high = share.interval
            cells = "".join(f"{figure(column).percent:>10}" for column in columns)
            interval = f"{100 * low:.1f} to {100 * high:.1f}"
            lines.append(f"{title:32}{share.total:6}{share.percent:>7}{interval:>15}{cells}")
        return "\n".join(lines)


def evaluate(pipeline: Pipeline, seed: int, scenes: int, notify: Notify) -> Evaluation:
    """Puts every question to the model, to the model shown black, and to the commonest answers of training.

    See `held_out_exercises` for the scenes. Raises ConfigError for those, ContextOverflowError and EngineError.
    """
    started = time.perf_counter()
    exercises = list(held_out_exercises(seed, scenes))

    def replies(look: Look, title: str) -> list[Reply]:
        return list(answer(pipeline, _with_progress(exercises, title, notify), look))

    seen = replies(seeing(pipeline), "model")
    baselines = {
        "majority": list(answer_by_kind(_majority_answers(), exercises)),
        "blind": replies(blind(pipeline), "model shown black"),
    }
    return Evaluation(seen, baselines, time.perf_counter() - started)


def report_evaluation(pipeline: Pipeline, seed: int, scenes: int, notify: Notify) -> tuple[str, Figures]:
    """Evaluates as `evaluate` does. Returns a text for people, and all figures with the wrong replies for JSON."""
    evaluation = evaluate(pipeline, seed, scenes, notify)
    host, model, backend = describe(), pipeline.config.model_dir, pipeline.backend.description
    figures = evaluation.json()
    first, last = figures["seeds"]["evaluated"]
    ms = figures["mean_ms"]
    text = (
        f"{host['cpu']}, {host['cores']} cores; {backend}\n"
        f"{model}: {figures['scenes']} scenes, seeds {first} to {last}; {evaluation.seconds:.0f} s with the baselines\n"
        f"mean ms: encoding one view {ms['encoding_one_view']:.1f}, six views {ms['encoding_six_views']:.1f}; "
        f"then a caption {ms['caption']:.1f}, a short answer {ms['short_answer']:.1f}\n\n{evaluation.table()}"
    )
    return text, {"machine": host, "model": str(model), "backend": backend, **figures}


@functools.cache
def _majority_answers() -> Mapping[str, str]:
    return commonest_answers(training_exercises(TRAINING_SCENES))


def _with_progress(exercises: Sequence[Exercise], title: str, notify: Notify) -> Iterator[Exercise]:
    started = noted = time.perf_counter()
    for done, exercise in enumerate(exercises, start=1):
        yield exercise
        now = time.perf_counter()
        if now - noted > _SECONDS_BETWEEN_NOTES:
            noted = now
            left = (now - started) * (len(exercises) - done) / done
            notify(f"{title}: {done} of {len(exercises)} exercises, about {left:.0f} s left")


def _rows(whole: Score) -> list[tuple[str, Callable[[Score], Share]]]:
    def of_kind(kind: str) -> Callable[[Score], Share]:
        return lambda part: part.kinds.get(kind, NOTHING)

    return [
        ("short answers", lambda part: part.answers),
        *((f"  {kind.replace('_', ' ')}", of_kind(kind)) for kind in whole.kinds),
        ("captions: statements made, true", lambda part: part.captions.truth),
        ("  statements due, made", lambda part: part.captions.coverage),
        ("  true and complete", lambda part: part.captions.exact),
        ("held out: kind and colour", lambda part: part.held_out.answers),
        ("  statements made, true", lambda part: part.held_out.truth),
        ("  statements due, made", lambda part: part.held_out.coverage),
        ("held out: weather and time", lambda part: part.held_out.condition),
    ]


def _with_splits(replies: Sequence[Reply]) -> Figures:
    splits = {name: _figures(filter(belongs, replies)) for name, belongs in SPLITS.items()}
    return {**_figures(replies), "splits": splits}


def _figures(replies: Iterable[Reply]) -> Figures:
    scores = score(replies)
    captions, held_out = scores.captions, scores.held_out
    concerned = {
        "short_answers": held_out.answers,
        "caption_truth": held_out.truth,
        "caption_coverage": held_out.coverage,
        "condition": held_out.condition,
    }
    return {
        "questions": scores.answers.total,
        **_flat("answer_accuracy", scores.answers),
        "captions": captions.exact.total,
        "caption_statements": captions.truth.total,
        **_flat("caption_truth", captions.truth),
        **_flat("caption_coverage", captions.coverage),
        **_flat("captions_exact", captions.exact),
        "kinds": {kind: share.json() for kind, share in scores.kinds.items()},
        "held_out": {name: share.json() for name, share in concerned.items()},
    }


def _flat(name: str, share: Share) -> Figures:
    return {name: share.value, f"{name}_interval": list(share.interval)}


def _mistake(reply: Reply) -> Figures:
    return {
        "seed": reply.exercise.scene.seed,
        "unseen": reply.exercise.unseen,
        "cameras": reply.exercise.cameras,
        "kind": reply.question.kind,
        "question": reply.question.text,
        "answer": reply.question.answer,
        "given": reply.text,
    }
