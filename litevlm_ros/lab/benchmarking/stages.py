"""The stages of an answer, timed on synthetic camera images and a fixed number of tokens."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from litevlm_ros.backend import Tiles, TokenIds
from litevlm_ros.config import CAPTION_PROMPT, DEMO_CAMERAS, PipelineConfig, SamplingConfig
from litevlm_ros.machine import describe
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.text.prompt import PromptBuilder
from litevlm_ros.text.tokenizer import TextTokenizer
from litevlm_ros.types import Answer, RgbImage, View
from litevlm_ros.vision.tiling import HostTiler

_WARM_UP = 3


@dataclass(frozen=True)
class Statistics:
    """Median, minimum and maximum of one quantity over all runs."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Statistics:
        """Raises statistics.StatisticsError without values."""
        return cls(statistics.median(values), min(values), max(values))


def median_ms(
    work: Callable[[], object],
    runs: int,
    clock: Callable[[], float] = time.perf_counter,
    before: Callable[[], object] = lambda: None,
) -> float:
    """Returns the median ms of `runs` calls of `work`, after a few that are not counted.

    `before` is called before each of them and not timed.
    """
    times = []
    for _ in range(_WARM_UP + runs):
        before()
        started = clock()
        work()
        times.append(1e3 * (clock() - started))
    return statistics.median(times[_WARM_UP:])


# --- the work


def camera_image(index: int, width: int, height: int) -> RgbImage:
    """Draws sky, road and a coloured box, the same on every machine: uint8 [height, width, 3]."""
    rows, columns = (np.arange(height) / height)[:, None], (np.arange(width) / width)[None]
    shade = np.where(rows < 0.45, 200 - 80 * rows, 60 + 60 * rows + 20 * np.sin(40 * columns * rows))
    image = np.stack((shade, shade, shade + 30 * (rows < 0.45)), -1)
    left = 0.1 + 0.12 * index
    box = (columns > left) & (columns < left + 0.2) & (rows > 0.4) & (rows < 0.6)
    image[box] = np.roll((220, 40, 30), index)
    return np.clip(image, 0, 255).astype(np.uint8)


def camera_views(count: int, resolution: tuple[int, int]) -> list[View]:
    """Draws an image of `resolution`, width and height in pixels, for each of the first `count` demo cameras."""
    return [View(camera, camera_image(index, *resolution)) for index, camera in enumerate(DEMO_CAMERAS[:count])]


@dataclass(frozen=True)
class Workload:
    """The input of both graphs for one answer, without a pipeline.

    `prompt` has token ids [S], in which V + i stands for visual token i. `tiles` makes the tiles of all views anew, as
    uint8 [N, size, size, 3].
    """

    prompt: TokenIds
    tiles: Callable[[], Tiles]

    @classmethod
    def of(cls, directory: Path, views: Sequence[View], question: str, max_tiles: int = 1) -> Workload:
        """Makes what the pipeline of this model directory makes of views and question. Raises LiteVLMError."""
        model, tokenizer = ModelConfig.from_directory(directory), TextTokenizer.from_directory(directory)
        tiler = HostTiler(model, max_tiles)
        builder = PromptBuilder(model.template, tokenizer, model.text.vocab_size, model.vision.tokens_per_tile)
        cameras = (view.camera for view in views)
        prefix = builder.prefix(list(zip(cameras, tiler.cut(views).counts, strict=True)))
        prompt = np.array([*prefix, *builder.suffix(question)])
        return cls(prompt, lambda: tiler.cut(views).tiles)


# --- its stages


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
"""Figures that are taken from each answer; times in ms."""


def measure(pipeline: Pipeline, views: Sequence[View], tokens: int, runs: int) -> dict[str, Statistics]:
    """Returns the STAGES of `time_answers`, and the answer that a user waits for.

    The latter is 'caption', its time in ms, and 'caption_tokens', its length. There the model stops where it wants, at
    most after `tokens`.
    """
    captions = _answers(pipeline, views, tokens, runs)
    results = time_answers(pipeline, views, tokens, runs)
    results["caption"] = Statistics.of([answer.timings.total for answer in captions])
    results["caption_tokens"] = Statistics.of([answer.tokens.generated for answer in captions])
    return results


def time_answers(pipeline: Pipeline, views: Sequence[View], tokens: int, runs: int) -> dict[str, Statistics]:
    """Returns the STAGES of `runs` answers of exactly `tokens` tokens, so that all do equal work."""
    stop_ids, pipeline.stop_ids = pipeline.stop_ids, frozenset()
    try:
        answers = _answers(pipeline, views, tokens, runs)
    finally:
        pipeline.stop_ids = stop_ids
    return {name: Statistics.of([figure(answer) for answer in answers]) for name, figure in STAGES.items()}


def _answers(pipeline: Pipeline, views: Sequence[View], tokens: int, runs: int) -> list[Answer]:
    """Returns the last `runs` of a few more: the first runs of a shape compile, capture and allocate."""
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


def report_stages(
    config: PipelineConfig, views: int, resolution: tuple[int, int], tokens: int, runs: int
) -> tuple[str, dict[str, Any]]:
    """Measures a model on `views` images. Returns a table and its figures for JSON. Raises LiteVLMError."""
    with contextlib.closing(Pipeline.from_config(config)) as pipeline:
        results = measure(pipeline, camera_views(views, resolution), tokens, runs)
        report = {
            "machine": describe(),
            "model": str(config.model_dir),
            "backend": pipeline.backend.description,
            "work": {
                "views": views,
                "resolution": list(resolution),
                "max_tiles": config.max_tiles,
                "tokens": tokens,
                "runs": runs,
            },
            "device_memory": dict(pipeline.backend.memory()),
            "results": {name: asdict(figures) for name, figures in results.items()},
        }
    return stages_table(report), report


def stages_table(report: Mapping[str, Any]) -> str:
    """Returns the figures of `report_stages` as a table."""
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
