"""Measure a model on this machine: medians of each stage, of a token, and of a caption from image to text.

ros2 run litevlm_ros benchmark --model models/demo --views 1 --runs 20 --json benchmark.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from litevlm_ros.config import BACKENDS, PipelineConfig, SamplingConfig
from litevlm_ros.errors import ConfigError, LiteVLMError
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.types import Answer, RgbImage, View

CAMERAS = ("front", "front_left", "front_right", "back", "back_left", "back_right")
CAPTION_PROMPT = "Describe the scene."


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


def measure(pipeline: Pipeline, views: Sequence[View], tokens: int, runs: int) -> dict[str, Statistics]:
    """Times in ms by name, of `runs` runs after one that is not counted.

    The stages are those of an answer of exactly `tokens` tokens, so that backends and models do the same work.
    `caption` is what a user waits for: the model stops where it wants, at most after `tokens`.
    """
    sampling = SamplingConfig(max_new_tokens=tokens)

    def answer() -> Answer:
        return pipeline.generate(views, CAPTION_PROMPT, sampling)

    captions = _repeat(answer, runs)
    stop_ids = pipeline.tokenizer.stop_ids
    pipeline.tokenizer.stop_ids = frozenset()
    try:
        fixed = _repeat(answer, runs)
    finally:
        pipeline.tokenizer.stop_ids = stop_ids
    # Prefill gives the first token.
    quantities: Mapping[str, Callable[[Answer], float]] = {
        "preprocess": lambda answer: answer.timings.preprocess,
        "vision": lambda answer: answer.timings.vision,
        "prefill": lambda answer: answer.timings.prefill,
        "decode_token": lambda answer: answer.timings.decode / max(1, answer.tokens.generated - 1),
        "total": lambda answer: answer.timings.total,
    }
    results = {name: Statistics.of([of(answer) for answer in fixed]) for name, of in quantities.items()}
    results["caption"] = Statistics.of([answer.timings.total for answer in captions])
    results["caption_tokens"] = Statistics.of([answer.tokens.generated for answer in captions])
    results["prompt_tokens"] = Statistics.of([answer.tokens.prompt for answer in fixed])
    results["visual_tokens"] = Statistics.of([answer.tokens.visual for answer in fixed])
    return results


def camera_image(index: int, width: int, height: int) -> RgbImage:
    """A picture with sky, road and a coloured box, the same on every machine: uint8 [height, width, 3]."""
    rows, columns = (np.arange(height) / height)[:, None], (np.arange(width) / width)[None]
    shade = np.where(rows < 0.45, 200 - 80 * rows, 60 + 60 * rows + 20 * np.sin(40 * columns * rows))
    image = np.stack((shade, shade, shade + 30 * (rows < 0.45)), -1)
    left = 0.1 + 0.12 * index
    box = (columns > left) & (columns < left + 0.2) & (rows > 0.4) & (rows < 0.6)
    image[box] = np.roll((220, 40, 30), index)
    return np.clip(image, 0, 255).astype(np.uint8)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 after an error that it has explained on stderr."""
    options = _parser().parse_args(argv)
    try:
        report = _run(options)
    except LiteVLMError as error:
        print(error, file=sys.stderr)
        return 1
    _print(report)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def _run(options: argparse.Namespace) -> dict[str, Any]:
    for name, most in (("views", len(CAMERAS)), ("runs", None), ("tokens", None)):
        value = getattr(options, name)
        if value < 1 or (most is not None and value > most):
            raise ConfigError(f"--{name} is {value}; allowed: from 1" + (f" to {most}" if most else ""))
    width, height = options.resolution
    views = [View(camera, camera_image(i, width, height)) for i, camera in enumerate(CAMERAS[: options.views])]
    pipeline = Pipeline.from_config(
        PipelineConfig(
            model_dir=options.model,
            backend=options.backend,
            threads=options.threads,
            spin_threads=options.spin,
            max_tiles=options.max_tiles,
        )
    )
    results = measure(pipeline, views, options.tokens, options.runs)
    return {
        "machine": machine(),
        "model": str(options.model),
        "backend": pipeline.backend.description,
        "work": {
            "views": options.views,
            "resolution": [width, height],
            "max_tiles": options.max_tiles,
            "tokens": options.tokens,
            "runs": options.runs,
        },
        "results": {name: asdict(figures) for name, figures in results.items()},
    }


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


def _print(report: Mapping[str, Any]) -> None:
    work, host = report["work"], report["machine"]
    print(f"{host['cpu']}, {host['cores']} cores; {report['backend']}")
    print(f"{report['model']}: {work['views']} views of {work['resolution'][0]}x{work['resolution'][1]}, "
          f"{work['tokens']} tokens, {work['runs']} runs")  # fmt: skip
    print(f"{'':24}{'median':>10}{'least':>10}{'most':>10}")
    for name, title, unit in _LINES:
        figures = report["results"][name]
        digits = 2 if unit else 0
        numbers = "".join(f"{figures[key]:10.{digits}f}" for key in ("median", "least", "most"))
        print(f"{title:24}{numbers} {unit}".rstrip())


def _repeat(answer: Callable[[], Answer], runs: int) -> list[Answer]:
    return [answer() for _ in range(runs + 1)][1:]


def _cpu_name() -> str:
    # The second is where a Jetson says what it is.
    for file, key in (("/proc/cpuinfo", "model name"), ("/proc/device-tree/model", "")):
        try:
            text = Path(file).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        lines = [line for line in text.splitlines() if line.startswith(key)]
        if lines:
            return lines[0].split(":", 1)[-1].strip("\0 \t")
    return platform.processor() or platform.machine()


def _resolution(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, such as 1280x720")
    return int(width), int(height)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmark", description="Measure a model on this machine.")
    model = parser.add_argument_group("model")
    model.add_argument("--model", type=Path, default=Path("models/demo"), metavar="DIR", help="directory (%(default)s)")
    backend = parser.add_argument_group("backend")
    backend.add_argument("--backend", choices=BACKENDS, default="auto", help="what runs it (%(default)s)")
    backend.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads (default: one for each core)")
    backend.add_argument("--spin", action="store_true", help="let waiting CPU threads spin")
    work = parser.add_argument_group("work")
    work.add_argument("--views", type=int, default=1, metavar="N", help="images in one prompt, 1 to 6 (%(default)s)")
    work.add_argument(
        "--resolution", type=_resolution, default="1280x720", metavar="WxH", help="size of each image (%(default)s)"
    )
    work.add_argument("--max-tiles", type=int, default=1, metavar="N", help="tiles of one view (%(default)s)")
    work.add_argument("--tokens", type=int, default=32, metavar="N", help="tokens of an answer (%(default)s)")
    work.add_argument("--runs", type=int, default=20, metavar="N", help="runs to take the median of (%(default)s)")
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write machine, settings and figures there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
