"""The accuracy that fewer bits cost: the same questions to one model in several precisions."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ConfigError, EngineError
from litevlm_ros.lab.evaluation.answering import Reply, answer, seeing
from litevlm_ros.lab.evaluation.scores import Score, is_right, paired_loss, score
from litevlm_ros.lab.world.calibration import calibration_data
from litevlm_ros.lab.world.exercises import CAPTION, Exercise, held_out_exercises
from litevlm_ros.machine import describe, find_device
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.precision import GRAPH_PRECISIONS, PRECISIONS, choose_precision
from litevlm_ros.types import Notify

REFERENCE = "fp32"
"""The precision that the others are compared with: the graphs of the model directory, on ONNX Runtime."""


@dataclass(frozen=True)
class PrecisionScore:
    """The replies in one precision. `backend` describes in words what ran it."""

    precision: str
    backend: str
    replies: tuple[Reply, ...]

    @property
    def score(self) -> Score:
        """All scores of the replies."""
        return score(self.replies)

    def right(self) -> list[bool]:
        """Tells for each short answer whether it is right."""
        return [is_right(reply) for reply in self.replies if reply.question.kind != CAPTION]


@dataclass(frozen=True)
class Loss:
    """The difference of two precisions, in percentage points of short answers that are right.

    `low` and `high` bound its 95 % interval. `changed` is the share of all replies, captions too, with other
    words.
    """

    points: float
    low: float
    high: float
    changed: float

    @classmethod
    def of(cls, reference: PrecisionScore, other: PrecisionScore) -> Loss:
        """Returns what `other` loses against `reference`."""
        texts = [a.text != b.text for a, b in zip(reference.replies, other.replies, strict=True)]
        return cls(*paired_loss(reference.right(), other.right()), sum(texts) / max(1, len(texts)))


def examine_precisions(
    config: PipelineConfig, precisions: Sequence[str], exercises: Sequence[Exercise], notify: Notify
) -> list[PrecisionScore]:
    """Returns replies of the model of `config` in REFERENCE and then in each of `precisions` ('fp16', 'fp8', ...).

    With the backend 'tensorrt' these are engines of the model directory; those that are missing are skipped and named.
    Otherwise graphs are drawn and run by ONNX Runtime, which computes with the numbers that engines store. Raises
    LiteVLMError.
    """
    with tempfile.TemporaryDirectory(prefix="litevlm_precisions_") as directory:
        results = []
        for precision in (REFERENCE, *precisions):
            notify(f"{precision}: {len(exercises)} exercises")
            try:
                pipeline = Pipeline.from_config(_settings(config, precision, Path(directory)))
            except EngineError as error:
                notify(f"{precision} is left out: {error}")
                continue
            with contextlib.closing(pipeline):
                replies = tuple(answer(pipeline, exercises, seeing(pipeline)))
                results.append(PrecisionScore(precision, pipeline.backend.description, replies))
        if not results:
            raise EngineError(f"{config.model_dir} runs in none of {', '.join((REFERENCE, *precisions))}")
        return results


def _settings(config: PipelineConfig, precision: str, directory: Path) -> PipelineConfig:
    if precision == REFERENCE:
        return replace(config, backend="onnxruntime", vision_precision=REFERENCE, text_precision=REFERENCE)
    device = find_device() if config.backend == "tensorrt" else None
    capability = device.compute_capability if device else None
    built = {part: choose_precision(part, precision, capability).built for part in (VISION, TEXT)}
    config = replace(config, vision_precision=built[VISION], text_precision=built[TEXT])
    if config.backend == "tensorrt":
        return config
    # Imported here: engines need no torch.
    from litevlm_ros.convert.export import export_graphs

    calibration = partial(calibration_data, config.model_dir)
    both = dict.fromkeys((VISION, TEXT), precision)
    for _ in export_graphs(config.model_dir, directory, both, check=False, calibration=calibration, exact=True):
        pass
    return replace(config, model_dir=directory, backend="onnxruntime")


def precision_table(results: Sequence[PrecisionScore]) -> str:
    """Returns a table of shares in percent."""
    first = results[0]
    lines = [
        f"{first.score.answers.total} questions and {first.score.captions.exact.total} captions; in parentheses 95 % "
        f"intervals; lost: points against {first.precision}, on the same questions",
        f"{'':6}{'short answers right':>24}{'lost':>26}{'statements true':>17}{'captions exact':>16}{'changed':>9}",
    ]
    for row in results:
        answers, captions = row.score.answers, row.score.captions
        low, high = answers.interval
        right = f"{answers.percent} ({100 * low:.1f} to {100 * high:.1f})"
        cells = f"{'-':>26}{captions.truth.percent:>17}{captions.exact.percent:>16}{'-':>9}"
        if row is not first:
            loss = Loss.of(first, row)
            lost = f"{loss.points:.2f} ({loss.low:.2f} to {loss.high:.2f})"
            cells = f"{lost:>26}{captions.truth.percent:>17}{captions.exact.percent:>16}"
            cells += f"{100 * loss.changed:8.1f}%"
        lines.append(f"{row.precision:6}{right:>24}{cells}")
    return "\n".join([*lines, *dict.fromkeys(row.backend for row in results)])


def precision_json(results: Sequence[PrecisionScore]) -> list[dict[str, Any]]:
    """Returns the same figures with their counts, for a JSON file."""
    rows = []
    for row in results:
        captions, loss = row.score.captions, Loss.of(results[0], row)
        rows.append(
            {
                "precision": row.precision,
                "backend": row.backend,
                "answers": row.score.answers.json(),
                "caption_truth": captions.truth.json(),
                "captions_exact": captions.exact.json(),
                "lost_points": loss.points,
                "lost_interval": [loss.low, loss.high],
                "changed": loss.changed,
            }
        )
    return rows


def report_precisions(
    config: PipelineConfig, precisions: Sequence[str], seed: int, scenes: int, notify: Notify
) -> tuple[str, dict[str, Any]]:
    """Examines `precisions` on held-out scenes. Returns a text for people and figures for JSON. Raises LiteVLMError."""
    allowed = PRECISIONS if config.backend == "tensorrt" else GRAPH_PRECISIONS
    for precision in precisions:
        if precision not in allowed:
            raise ConfigError(f"--precisions has {precision!r}; allowed: {', '.join(allowed)}, with commas")
    results = examine_precisions(config, precisions, list(held_out_exercises(seed, scenes)), notify)
    host = describe()
    text = f"{host['cpu']}, {host['cores']} cores; {config.model_dir}, {scenes} scenes\n{precision_table(results)}"
    return text, {"machine": host, "model": str(config.model_dir), "precisions": precision_json(results)}
