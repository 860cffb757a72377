"""An evaluation on DriveLM-nuScenes, with data that its user has: accuracy and match, with view selection off and on.

This is the accuracy column of LiteVLM's table (arXiv 2506.07416), whose model was trained for these questions.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from litevlm_ros.config import PipelineConfig, ReuseConfig, SamplingConfig, ViewSelectionConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.drivelm_file import KeyFrame, LeftOut, read_key_frames
from litevlm_ros.lab.evaluation.drivelm_images import ImageFolder, with_images
from litevlm_ros.lab.evaluation.drivelm_objects import Wording
from litevlm_ros.lab.evaluation.drivelm_run import STAGES, Asked, DriveLMRun, ask
from litevlm_ros.lab.evaluation.drivelm_scores import NEAR_PIXELS, mean
from litevlm_ros.lab.evaluation.scores import Share, paired_loss
from litevlm_ros.machine import describe
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.types import Notify
from litevlm_ros.vision.learned_view_selection import load_view_selector
from litevlm_ros.vision.view_selection import ViewSelector

MOST_TOKENS = 256
"""The most tokens of an answer. A list of a key frame's objects takes about 25 tokens for each of them."""

_NOTES = f"""\
Accuracy: answers that are equal to the true one to the letter (tag 0), with 95 % intervals. Match: mean F1 of the
objects in an answer, found within {NEAR_PIXELS:g} pixels (tag 3). The challenge counts a question about objects only if
the answer to its key frame's first question found them; "all" counts every question that was asked.
Left out of the challenge's scores: ChatGPT's, which needs a paid service and is also half of the challenge's match
score, and the language scores (BLEU, ROUGE-L, CIDEr), which need its reference tools; so there is no final score."""


@dataclass(frozen=True)
class DriveLMData:
    """The data of a user: a question file, the folder of its pictures, and the number of questions to ask (0: all)."""

    file: Path
    images: Path
    questions: int = 0


def report_drivelm(
    config: PipelineConfig, data: DriveLMData, selection: str, wording: Wording, notify: Notify
) -> tuple[str, dict[str, Any]]:
    """Asks each question from all views and from those that `selection` ('lexical' or 'learned') keeps.

    `wording` is that of the model's training. Returns a text for people, and all figures and answers for JSON. Raises
    LiteVLMError.
    """
    if data.questions < 0:
        raise ConfigError(f"--drivelm-questions is {data.questions}; allowed: from 0. Use 0 for all questions")
    left_out = LeftOut()
    frames = with_images(read_key_frames(data.file, left_out), ImageFolder(data.images), data.file, left_out)
    frames = _first(frames, data.questions)
    selector = load_view_selector(ViewSelectionConfig(selection), config.model_dir)
    assert selector is not None, "view selection is on"
    config = replace(config, sampling=SamplingConfig(max_new_tokens=MOST_TOKENS), reuse=ReuseConfig(frames=0))
    for line in left_out.lines():
        notify(line)
    with contextlib.closing(Pipeline.from_config(config)) as pipeline:
        notify(f"{pipeline.backend.description}: {sum(len(frame.questions) for frame in frames)} questions, twice")
        return _report(pipeline, selector, selection, wording, frames, data, left_out, notify)


def _report(
    pipeline: Pipeline,
    selector: ViewSelector,
    selection: str,
    wording: Wording,
    frames: Sequence[KeyFrame],
    data: DriveLMData,
    left_out: LeftOut,
    notify: Notify,
) -> tuple[str, dict[str, Any]]:
    started = time.perf_counter()
    asked = ask(pipeline, selector, wording, frames, left_out, notify)
    if not asked.frames:
        raise ConfigError(f"--images: no picture in {data.images} can be read. {'. '.join(left_out.lines())}")
    seconds = time.perf_counter() - started
    host, model, backend = describe(), pipeline.config.model_dir, pipeline.backend.description
    questions = sum(len(frame.questions) for frame in asked.frames)
    text = (
        f"{host['cpu']}, {host['cores']} cores; {backend}\n"
        f"{model}: {questions} questions about {len(asked.frames)} key frames of {data.file.name}, {seconds:.0f} s; "
        f"views chosen by {selection} selection; objects in the {wording.object_form} form\n\n"
        f"{drivelm_table(asked)}\n\n" + "\n".join([_NOTES, *_remarks(asked), *left_out.lines()])
    )
    figures = {
        "machine": host,
        "model": str(model),
        "backend": backend,
        "file": str(data.file),
        "view_selection": selection,
        "object_form": wording.object_form,
        "hint": wording.hint,
        "key_frames": len(asked.frames),
        "questions": questions,
        "seconds": seconds,
        "left_out": left_out.counts,
        **drivelm_json(asked),
    }
    return text, figures


def drivelm_table(asked: Asked) -> str:
    """Returns a row for each run: accuracy and match in percent, means of views and tokens, and mean ms by stage."""
    stages = [f"{stage} ms" for stage in STAGES]
    columns = ["accuracy %", "all accuracy %", "points lost", "match %", "all match %", "views", "tokens", *stages]
    lines = [f"| | {' | '.join(columns)} |", f"|{'---|' * (1 + len(columns))}"]
    lines += [f"| {run.title} | {' | '.join(_cells(run, asked))} |" for run in (asked.all_views, asked.chosen)]
    return "\n".join(lines)


def drivelm_json(asked: Asked) -> dict[str, Any]:
    """Returns the figures of both runs, the points that choosing views loses, and every question with its answers."""
    runs = {"all_views": asked.all_views, "chosen_views": asked.chosen}
    answers = []
    for frame in asked.frames:
        for question in frame.questions:
            given = {name: run.answers.get(question.id) for name, run in runs.items()}
            answers.append(
                {
                    "id": question.id,
                    "question": question.text,
                    "answer": question.answer,
                    "tags": sorted(question.tags),
                    "given": {
                        name: {"text": answer.text, "cameras": answer.cameras} if answer else None
                        for name, answer in given.items()
                    },
                }
            )
    return {
        "runs": {name: run.json(asked.frames) for name, run in runs.items()},
        "points_lost": list(_lost(asked)),
        "answers": answers,
    }


def _first(frames: Sequence[KeyFrame], questions: int) -> list[KeyFrame]:
    """Returns the key frames with the first `questions` questions, 0 for all; the last one may lose some."""
    chosen, left = [], questions or sum(len(frame.questions) for frame in frames)
    for frame in frames:
        if left <= 0:
            break
        chosen.append(replace(frame, questions=frame.questions[:left]))
        left -= len(frame.questions)
    return chosen


def _lost(asked: Asked) -> tuple[float, float, float]:
    """Returns the points of accuracy that the chosen views lose on all questions, with their 95 % interval."""
    return paired_loss(
        asked.all_views.scores(asked.frames).all_accuracy, asked.chosen.scores(asked.frames).all_accuracy
    )


def _cells(run: DriveLMRun, asked: Asked) -> list[str]:
    scores, means = run.scores(asked.frames), run.means()
    points, low, high = _lost(asked)
    lost = f"{points:.1f} ({low:.1f} to {high:.1f})" if run is asked.chosen and scores.all_accuracy else "-"
    cells = [_share(scores.accuracy), _share(scores.all_accuracy), lost, _mean(scores.f1), _mean(scores.all_f1)]
    for name, value in means.items():
        digits = {"views": 2, "visual_tokens": 0, "select": 2}.get(name, 1)
        cells.append("-" if value is None else f"{value:.{digits}f}")
    return cells


def _share(outcomes: Sequence[bool]) -> str:
    share = Share.of(outcomes)
    low, high = (100 * bound for bound in share.interval)
    return f"{share.percent} ({low:.1f} to {high:.1f}, of {share.total})" if share.total else "-"


def _mean(values: list[float]) -> str:
    value = mean(values)
    return "-" if value is None else f"{100 * value:.1f} (of {len(values)})"


def _remarks(asked: Asked) -> list[str]:
    """Returns a line for whatever makes answers of a run worse than the model's own."""
    lines = []
    for run in (asked.all_views, asked.chosen):
        if run.too_long:
            lines.append(
                f"With {run.title}, {run.too_long} questions did not fit into the context and count as wrong; give a "
                "smaller --max-tiles"
            )
        if run.cut:
            lines.append(f"With {run.title}, {run.cut} answers were cut at their most tokens ({MOST_TOKENS} or less)")
    return lines
