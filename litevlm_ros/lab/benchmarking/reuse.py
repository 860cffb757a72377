"""The time that a further question about a frame saves, and the time to see that a view did not change."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from litevlm_ros.config import CAPTION_PROMPT, DEMO_CAMERAS, PipelineConfig, ReuseConfig
from litevlm_ros.lab.benchmarking.stages import Statistics, camera_image
from litevlm_ros.machine import describe
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.types import Answer, View, milliseconds_since
from litevlm_ros.vision.frame_change import change, mosaic

FURTHER_QUESTION = "How many cars are there?"


@dataclass(frozen=True)
class ReuseFigures:
    """Times in ms: `first` and `further` by stage, of the first question about a frame and of the next one.

    `reused_views` is the least number of views that a further question took over, `reused_tokens` the least number of
    the `tokens` of its prompt that were in the cache. `different` counts further answers that are not those of a
    pipeline which keeps nothing. `gate` is the time of comparing a frame with the one before.
    """

    first: Mapping[str, Statistics]
    further: Mapping[str, Statistics]
    reused_views: int
    tokens: int
    reused_tokens: int
    different: int
    gate: Statistics


def measure_reuse(config: PipelineConfig, count: int, size: tuple[int, int], runs: int) -> ReuseFigures:
    """Asks twice about each of `runs` frames of `count` views. `size` is width and height in pixels.

    Raises what `Pipeline.from_config` and `generate` raise.
    """
    keeping, forgetful = (Pipeline.from_config(replace(config, reuse=ReuseConfig(frames))) for frames in (count, 0))
    images = [camera_image(index, *size) for index in range(count)]
    first, further, different = [], [], 0
    try:
        # The first frame warms everything up.
        for frame in range(runs + 1):
            views = [View(camera, image, frame) for camera, image in zip(DEMO_CAMERAS, images, strict=False)]
            first.append(keeping.generate(views, CAPTION_PROMPT))
            further.append(keeping.generate(views, FURTHER_QUESTION))
            different += further[-1].text != forgetful.generate(views, FURTHER_QUESTION).text
    finally:
        keeping.close()
        forgetful.close()
    return ReuseFigures(
        first=_stages(first[1:]),
        further=_stages(further[1:]),
        reused_views=min(answer.reuse.views for answer in further),
        tokens=further[0].tokens.prompt,
        reused_tokens=min(answer.reuse.tokens for answer in further),
        different=different,
        gate=time_gate(size, runs),
    )


def time_gate(size: tuple[int, int], runs: int) -> Statistics:
    """Times `mosaic` and `change` for one frame of `size`, width and height, in ms."""
    frames = [camera_image(index, *size) for index in range(2)]
    before, times = mosaic(frames[0]), []
    for run in range(runs + 1):
        started = time.perf_counter()
        change(before, mosaic(frames[run % 2]))
        times.append(milliseconds_since(started))
    return Statistics.of(times[1:])


def reuse_table(figures: ReuseFigures) -> str:
    """Returns a table of medians."""
    lines = [f"{'ms':12}{'first question':>16}{'further one':>16}"]
    for stage, first in figures.first.items():
        lines.append(f"{stage:12}{first.median:16.2f}{figures.further[stage].median:16.2f}")
    return "\n".join(
        [
            *lines,
            f"{figures.reused_tokens} of {figures.tokens} tokens of the further prompt were in the cache; "
            f"{figures.different} further answers differ from those without reuse",
            f"frame-change gate: {figures.gate.median:.2f} ms a frame (least {figures.gate.least:.2f})",
        ]
    )


def _stages(answers: Sequence[Answer]) -> dict[str, Statistics]:
    names = ("preprocess", "vision", "prefill")
    return {name: Statistics.of([getattr(answer.timings, name) for answer in answers]) for name in names}


def report_reuse(
    config: PipelineConfig, count: int, resolution: tuple[int, int], runs: int
) -> tuple[str, dict[str, Any]]:
    """Measures as `measure_reuse` does. Returns a table and its figures for JSON."""
    figures = measure_reuse(config, count, resolution, runs)
    return reuse_table(figures), {"machine": describe(), "model": str(config.model_dir), **asdict(figures)}
