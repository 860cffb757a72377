"""What fewer bits cost in accuracy: the same questions to one model in several precisions."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import EngineError
from litevlm_ros.lab.evaluation.answering import Reply, answer, seeing
from litevlm_ros.lab.evaluation.exercises import CAPTION, Exercise
from litevlm_ros.lab.evaluation.scores import Score, is_right, score
from litevlm_ros.lab.evaluation.share import paired_loss
from litevlm_ros.machine import find_device
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.precision import choose_precision

REFERENCE = "fp32"
"""What the others are compared with: the graphs of the model directory, on ONNX Runtime."""

Notify = Callable[[str], object]


@dataclass(frozen=True)
class PrecisionScore:
    """A precision's replies. `backend` is in words what ran it."""

    precision: str
    backend: str
    replies: tuple[Reply, ...]

    @property
    def score(self) -> Score:
        return score(self.replies)

    def right(self) -> list[bool]:
        """Of each short answer."""
        return [is_right(reply) for reply in self.replies if reply.question.kind != CAPTION]


@dataclass(frozen=True)
class Loss:
    """Percentage points of short answers that are right in one precision and not in another.

    `low` and `high` bound its 95 % interval. `changed` is the share of all replies, captions too, with other words.
    """

    points: float
    low: float
    high: float
    changed: float

    @classmethod
    def of(cls, reference: PrecisionScore, other: PrecisionScore) -> Loss:
        """What `other` loses against `reference`."""
        texts = [a.text != b.text for a, b in zip(reference.replies, other.replies, strict=True)]
        return cls(*paired_loss(reference.right(), other.right()), sum(texts) / max(1, len(texts)))


def examine_precisions(
    config: PipelineConfig, precisions: Sequence[str], exercises: Sequence[Exercise], notify: Notify
) -> list[PrecisionScore]:
    """Replies of the model of `config`, first in REFERENCE and then in each of `precisions` ('fp16', 'fp8', ...).

    With the backend 'tensorrt' these are engines of the model directory; those that are missing are skipped and named.
    Otherwise the graphs that engines are built from are drawn and run by ONNX Runtime, which computes with the same
    rounded values. Raises LiteVLMError.
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
        return replace(config, backend="onnxruntime", vision_precision="auto", text_precision="auto")
    device = find_device() if config.backend == "tensorrt" else None
    capability = device.compute_capability if device else None
    built = {part: choose_precision(part, precision, capability).built for part in (VISION, TEXT)}
    config = replace(config, vision_precision=built[VISION], text_precision=built[TEXT])
    if config.backend == "tensorrt":
        return config
    # Imported here: engines need no torch.
    from litevlm_ros.convert.export import export_graphs

    for _ in export_graphs(config.model_dir, directory, dict.fromkeys((VISION, TEXT), precision), check=False):
        pass
    return replace(config, model_dir=directory, backend="onnxruntime")


def precision_table(results: Sequence[PrecisionScore]) -> str:
    """For people: shares in percent."""
    first = results[0]
    lines = [
        f"{first.score.answers.total} questions and {first.score.captions.exact.total} captions; in parentheses 95 % "
        f"intervals; lost: points against {first.precision}, on the same questions",
        f"{'':6}{'short answers right':>24}{'lost':>26}{'statements true':>17}{'captions exact':>16}{'changed':>9}",
    ]
    for row in results:
        answers, captions = row.score.answers, row.score.captions
        low, high = answers.interval
        right = f"{_percent(answers.value)} ({100 * low:.1f} to {100 * high:.1f})"
        cells = f"{'-':>26}{_percent(captions.truth.value):>17}{_percent(captions.exact.value):>16}{'-':>9}"
        if row is not first:
            loss = Loss.of(first, row)
            lost = f"{loss.points:.2f} ({loss.low:.2f} to {loss.high:.2f})"
            cells = f"{lost:>26}{_percent(captions.truth.value):>17}{_percent(captions.exact.value):>16}"
            cells += f"{100 * loss.changed:8.1f}%"
        lines.append(f"{row.precision:6}{right:>24}{cells}")
    return "\n".join([*lines, *dict.fromkeys(row.backend for row in results)])


def precision_json(results: Sequence[PrecisionScore]) -> list[dict[str, Any]]:
    """The same figures, and how many cases each is of."""
    return [dict(_figures(row, results[0])) for row in results]


def _figures(row: PrecisionScore, first: PrecisionScore) -> Iterator[tuple[str, Any]]:
    yield "precision", row.precision
    yield "backend", row.backend
    captions = row.score.captions
    shares = {"answers": row.score.answers, "caption_truth": captions.truth, "captions_exact": captions.exact}
    for name, share in shares.items():
        yield name, {"right": share.hits, "of": share.total, "share": share.value, "interval": list(share.interval)}
    loss = Loss.of(first, row)
    yield "lost_points", loss.points
    yield "lost_interval", [loss.low, loss.high]
    yield "changed", loss.changed


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
