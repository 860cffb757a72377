"""The stages of an answer, timed on a fixed work load."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from litevlm_ros.config import SamplingConfig
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.types import Answer, RgbImage, View

CAMERAS = ("front", "front_left", "front_right", "back", "back_left", "back_right")
CAPTION_PROMPT = "Describe the scene."
_WARM_UP = 2


@dataclass(frozen=True)
class Statistics:
    """Of one quantity over all runs."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Statistics:
        """Raises statistics.StatisticsError without values."""
        return cls(statistics.median(values), min(values), max(values))


STAGES: Mapping[str, Callable[[Answer], float]] = {
    "preprocess": lambda answer: answer.timings.preprocess,
    "vision": lambda answer: answer.timings.vision,
    "prefill": lambda answer: answer.timings.prefill,
    # Prefill gives the first token.
    "decode_token": lambda answer: answer.timings.decode / max(1, answer.tokens.generated - 1),
    "total": lambda answer: answer.timings.total,
    "prompt_tokens": lambda answer: answer.tokens.prompt,
    "visual_tokens": lambda answer: answer.tokens.visual,
}
"""What is taken from each answer; times in ms."""


def measure(pipeline: Pipeline, views: Sequence[View], tokens: int, runs: int) -> dict[str, Statistics]:
    """STAGES of `time_answers`, and the answer that a user waits for: as `caption` its time, as `caption_tokens` its
    length. There the model stops where it wants, at most after `tokens`.
    """
    captions = _answers(pipeline, views, tokens, runs)
    results = time_answers(pipeline, views, tokens, runs)
    results["caption"] = Statistics.of([answer.timings.total for answer in captions])
    results["caption_tokens"] = Statistics.of([answer.tokens.generated for answer in captions])
    return results


def time_answers(pipeline: Pipeline, views: Sequence[View], tokens: int, runs: int) -> dict[str, Statistics]:
    """STAGES of `runs` answers of exactly `tokens` tokens, so that backends and models do the same work."""
    stop_ids = pipeline.tokenizer.stop_ids
    pipeline.tokenizer.stop_ids = frozenset()
    try:
        answers = _answers(pipeline, views, tokens, runs)
    finally:
        pipeline.tokenizer.stop_ids = stop_ids
    return {name: Statistics.of([of(answer) for answer in answers]) for name, of in STAGES.items()}


def camera_image(index: int, width: int, height: int) -> RgbImage:
    """A picture with sky, road and a coloured box, the same on every machine: uint8 [height, width, 3]."""
    rows, columns = (np.arange(height) / height)[:, None], (np.arange(width) / width)[None]
    shade = np.where(rows < 0.45, 200 - 80 * rows, 60 + 60 * rows + 20 * np.sin(40 * columns * rows))
    image = np.stack((shade, shade, shade + 30 * (rows < 0.45)), -1)
    left = 0.1 + 0.12 * index
    box = (columns > left) & (columns < left + 0.2) & (rows > 0.4) & (rows < 0.6)
    image[box] = np.roll((220, 40, 30), index)
    return np.clip(image, 0, 255).astype(np.uint8)


def _answers(pipeline: Pipeline, views: Sequence[View], tokens: int, runs: int) -> list[Answer]:
    """The last `runs` of a few more: the first runs of a shape compile, capture and allocate."""
    sampling = SamplingConfig(max_new_tokens=tokens)
    return [pipeline.generate(views, CAPTION_PROMPT, sampling) for _ in range(_WARM_UP + runs)][_WARM_UP:]


_LINES = (
    ("preprocess", "preprocess", "ms"),
    ("vision", "vision encoder", "ms"),
    ("prefill", "prefill", "ms"),
    ("decode_token", "decode, per token", "ms"),
    ("total", "answer of all tokens", "ms"),
    ("caption", "caption, image to text", "ms"),
    ("caption_tokens", "tokens of the caption", ""),
    ("prompt_tokens", "tokens of the prompt", ""),
    ("visual_tokens", "visual tokens", ""),
)


def stages_table(report: Mapping[str, Any]) -> str:
    """For people, from what `benchmark` writes as JSON."""
    work, host = report["work"], report["machine"]
    lines = [
        f"{host['cpu']}, {host['cores']} cores; {report['backend']}",
        f"{report['model']}: {work['views']} views of {work['resolution'][0]}x{work['resolution'][1]}, "
        f"{work['tokens']} tokens, {work['runs']} runs",
        f"{'':24}{'median':>10}{'least':>10}{'most':>10}",
    ]
    for name, title, unit in _LINES:
        figures = report["results"][name]
        digits = 2 if unit else 0
        numbers = "".join(f"{figures[key]:10.{digits}f}" for key in ("median", "least", "most"))
        lines.append(f"{title:24}{numbers} {unit}".rstrip())
    if report["device_memory"]:
        memory = (f"{name} {size / 1e6:.0f} MB" for name, size in report["device_memory"].items())
        lines.append(f"device memory: {', '.join(memory)}")
    return "\n".join(lines)
