"""The precisions that this GPU can run, each built and timed stage by stage in one run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from litevlm_ros.backend import Backend
from litevlm_ros.config import DEMO_CAMERAS, PipelineConfig
from litevlm_ros.engines.build import BuildRequest, build_engines
from litevlm_ros.engines.shapes import Sizes
from litevlm_ros.errors import ConfigError, EngineError
from litevlm_ros.lab.benchmarking.stages import time_answers
from litevlm_ros.lab.world.calibration import calibration_data
from litevlm_ros.machine import describe, find_device
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.precision import PRECISIONS, choose_precision
from litevlm_ros.runtime.tensorrt.engine_files import find_engine
from litevlm_ros.types import Notify, View

STAGES = ("vision", "prefill", "decode_token")

_MAX_CONTEXT = 2048

Inspect = Callable[[Backend], object]
"""A function that is called with each loaded backend after it was timed."""


@dataclass(frozen=True)
class PrecisionTimes:
    """Medians in ms of STAGES and 'total', an answer of all tokens.

    `built` has the precision of each part, `engines` the size of each file and `memory` the device memory by purpose,
    in bytes. `inspected` is what `inspect` returned.
    """

    name: str
    built: dict[str, str]
    prompt_tokens: int
    times: dict[str, float]
    engines: dict[str, int]
    memory: dict[str, int]
    inspected: object = field(default=None, repr=False)


def time_precisions(
    config: PipelineConfig,
    output: Path,
    precisions: Sequence[str],
    views: Sequence[View],
    tokens: int,
    runs: int,
    *,
    images: Path | None = None,
    inspect: Inspect | None = None,
    notify: Notify = print,
) -> tuple[list[PrecisionTimes], dict[str, str]]:
    """Builds `precisions` of the model of `config` below `output`, unless they are there, and times them.

    `images` are pictures to calibrate INT4 with. A precision that cannot be built or run is left out: the second
    result says why, by name. Raises ConfigError for what is no precision, and EngineError if none runs.
    """
    for name in precisions:
        if name not in PRECISIONS:
            raise ConfigError(f"--precisions has {name!r}; allowed: {', '.join(PRECISIONS)}, with commas between")
    results, failed = [], {}
    for name in precisions:
        try:
            _build(config, output, name, images, notify)
            results.append(_time(config, output, name, views, tokens, runs, inspect))
            notify(f"{name}: {results[-1].times}")
        except EngineError as error:
            failed[name] = str(error)
            notify(f"{name} is left out: {error}")
    if not results:
        raise EngineError("; ".join(f"{name}: {reason}" for name, reason in failed.items()))
    return results, failed


def _build(config: PipelineConfig, output: Path, precision: str, images: Path | None, notify: Notify) -> None:
    sizes = Sizes(len(DEMO_CAMERAS) * config.max_tiles, _MAX_CONTEXT)
    request = BuildRequest(
        config.model_dir,
        output,
        dict.fromkeys((VISION, TEXT), precision),
        sizes,
        calibration=partial(calibration_data, config.model_dir, images),
        recalibrate=images is not None,
    )
    build_engines(request, notify)


def _time(
    config: PipelineConfig,
    directory: Path,
    name: str,
    views: Sequence[View],
    tokens: int,
    runs: int,
    inspect: Inspect | None,
) -> PrecisionTimes:
    device = find_device()
    capability = device.compute_capability if device else None
    built = {part: choose_precision(part, name, capability).built for part in (VISION, TEXT)}
    settings = replace(
        config, engine_dir=directory, backend="tensorrt", vision_precision=built[VISION], text_precision=built[TEXT]
    )
    sizes = {part: find_engine(settings, part).path.stat().st_size for part in (VISION, TEXT)}
    with contextlib.closing(Pipeline.from_config(settings)) as pipeline:
        answers = time_answers(pipeline, views, tokens, runs)
        times = {stage: answers[stage].median for stage in (*STAGES, "total")}
        inspected = inspect(pipeline.backend) if inspect else None
        prompt = round(answers["prompt_tokens"].median)
        return PrecisionTimes(name, built, prompt, times, sizes, dict(pipeline.backend.memory()), inspected)


_TITLES = {"vision": "vision", "prefill": "prefill", "decode_token": "decode", "total": "whole answer"}


def precision_times_table(results: Sequence[PrecisionTimes], tokens: int) -> str:
    """Returns a table of times in ms, and the fastest precision in each stage."""
    lines = [
        f"{'':12}{'vision/text':>13}{'vision':>10}{'prefill':>10}{'ms/token':>10}{f'answer of {tokens}':>14}"
        f"{'MB on disk':>12}{'MB on GPU':>11}"
    ]
    for row in results:
        built = f"{row.built[VISION]}/{row.built[TEXT]}"
        stages = "".join(f"{row.times[stage]:10.3f}" for stage in STAGES)
        disk, memory = (sum(sizes.values()) / 1e6 for sizes in (row.engines, row.memory))
        lines.append(f"{row.name:12}{built:>13}{stages}{row.times['total']:14.2f}{disk:12.0f}{memory:11.0f}")
    fastest = []
    for stage, title in _TITLES.items():
        times = {row.name: row.times[stage] for row in results}
        best = min(times, key=times.__getitem__)
        fastest.append(f"{title} {best} ({times[best]:.3f} ms)")
    return "\n".join([*lines, f"prompt of {results[0].prompt_tokens} tokens; fastest: {', '.join(fastest)}"])


def report_precision_times(
    config: PipelineConfig,
    output: Path | None,
    precisions: Sequence[str],
    views: Sequence[View],
    tokens: int,
    runs: int,
    *,
    images: Path | None,
    inspect: Inspect | None,
) -> tuple[str, dict[str, Any]]:
    """Times `precisions` as `time_precisions` does, below MODEL/precisions if there is no `output`.

    Returns a table and its figures for JSON. Raises LiteVLMError.
    """
    host = describe()
    if not host["gpu"]:
        raise ConfigError(
            "--precisions times TensorRT engines and there is no NVIDIA GPU here, or its driver does not start; on a "
            "CPU, `evaluate --precisions` tells what fewer bits cost"
        )
    directory = output or config.model_dir / "precisions"
    results, failed = time_precisions(
        config, directory, precisions, views, tokens, runs, images=images, inspect=inspect
    )
    title = f"{host['gpu']}; {config.model_dir}, {len(views)} views, medians of {runs} in ms"
    report = {"machine": host, "precisions": [asdict(row) for row in results], "left_out": failed}
    return f"{title}\n{precision_times_table(results, tokens)}", report
