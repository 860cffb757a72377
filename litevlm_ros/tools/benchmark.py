"""Measure a model on this machine: medians of each stage, of a token, and of a caption from image to text.

ros2 run litevlm_ros benchmark --model models/demo --views 1 --runs 20 --json benchmark.json
ros2 run litevlm_ros benchmark --model models --compare-transformers --chart comparison.png
ros2 run litevlm_ros benchmark --model models --precisions fp16,bf16,fp8,int4
ros2 run litevlm_ros benchmark --model models --kernels --decode engine
ros2 run litevlm_ros benchmark --model models --kernel-resources 87
ros2 run litevlm_ros benchmark --model models --project all
ros2 run litevlm_ros benchmark --model models --project orin_nano --measured comparison.json
ros2 run litevlm_ros benchmark --ros --resolution 1280x720 --runs 100
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litevlm_ros.config import DEMO_CAMERAS, PipelineConfig, ReuseConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.benchmarking.boards import BOARDS
from litevlm_ros.lab.benchmarking.projection import report_projection
from litevlm_ros.lab.benchmarking.stages import camera_image, camera_views, report_stages
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.node.ros_environment import check_environment
from litevlm_ros.packages import ROS_ADVICE
from litevlm_ros.tools.command import (
    add_backend_options,
    add_decode_option,
    add_loaded_precision_options,
    add_model_option,
    new_parser,
    require_positive,
    run_command,
    say,
)

COMPARED_ENGINES = "fp16/fp16"
COMPARED_REFERENCES = "compiled"
COMPARED_VIEWS = (1, 6)

Report = tuple[str, dict[str, Any]]
"""A text for people, and figures for JSON."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 after an error that it has explained on stderr."""
    options = _parser().parse_args(argv)
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    options.model = options.model or demo_model_directory()
    require_positive(options, "views", "runs", "tokens", "context", "seconds")
    if options.views and options.views > len(DEMO_CAMERAS):
        raise ConfigError(f"--views is {options.views}; allowed: from 1 to {len(DEMO_CAMERAS)}")
    if options.compare_transformers and not options.project:
        if options.decode != "auto":
            raise ConfigError("--compare-transformers always runs with --decode auto; leave out --decode")
        _compare(options)
        return
    text, figures = _measure(options)
    say(text)
    _write(options, figures)


def _compare(options: argparse.Namespace) -> None:
    from litevlm_ros.lab.benchmarking.comparison import compare_named
    from litevlm_ros.lab.benchmarking.comparison_table import comparison_tables

    views = [options.views] if options.views else COMPARED_VIEWS
    comparison = compare_named(
        options.model, options.engines, options.references, views, options.tokens, options.runs, say
    )
    figures = json.loads(json.dumps(comparison.json()))  # as a file has it: the keys of a mapping are texts
    say(comparison_tables(figures))
    _write(options, figures)
    if options.chart:
        comparison.draw(options.chart)


def _measure(options: argparse.Namespace) -> Report:
    """Does the one measurement that the options ask for. What a robot does not have is imported only where needed."""
    count = options.views or 1
    if options.project:
        return report_projection(options.model, options.project, count, options.measured)
    if options.measured:
        raise ConfigError("--measured is for --project alone; say --project all too")
    if options.kernel_resources:
        from litevlm_ros.lab.benchmarking.kernel_resources import report_resources

        return report_resources(options.model, options.kernel_resources)
    config = PipelineConfig(
        model_dir=options.model,
        backend=options.backend,
        vision_precision=options.vision_precision,
        text_precision=options.text_precision,
        decode=options.decode,
        threads=options.threads,
        spin_threads=options.spin,
        max_tiles=options.max_tiles,
        reuse=ReuseConfig(frames=0),  # each run stands for a new frame
    )
    views = camera_views(count, options.resolution)
    if options.precisions or options.kernels:
        from litevlm_ros.lab.benchmarking.kernels import kernel_tracer, report_kernels
        from litevlm_ros.lab.benchmarking.precision_times import report_precision_times

        if not options.precisions:
            return report_kernels(config, views, options.tokens)
        return report_precision_times(
            config,
            options.output,
            options.precisions.split(","),
            views,
            options.tokens,
            options.runs,
            images=options.calibration_images,
            inspect=kernel_tracer(config, views, options.tokens, say) if options.kernels else None,
        )
    if options.speculation:
        from litevlm_ros.lab.benchmarking.speculation import report_speculation

        return report_speculation(config, options.context, options.runs)
    if options.reuse:
        from litevlm_ros.lab.benchmarking.reuse import report_reuse

        return report_reuse(config, count, options.resolution, options.runs)
    if options.ros:
        return _ros(options)
    return report_stages(config, count, options.resolution, options.tokens, options.runs)


def _ros(options: argparse.Namespace) -> Report:
    check_environment()
    try:
        from litevlm_ros.lab.benchmarking import ros_load, ros_overhead
    except ImportError as error:
        raise ConfigError(f"--ros needs ROS 2 and the built package ({error}): {ROS_ADVICE}") from error
    text, figures = ros_overhead.report_overhead(options.resolution, options.runs)
    load = ros_load.measure("jpeg", camera_image(0, *options.resolution), options.model, options.seconds)
    return f"{text}\n{ros_load.load_table(load)}", {**figures, "load": load}


def _write(options: argparse.Namespace, figures: dict[str, Any]) -> None:
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _resolution(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, such as 1280x720")
    return int(width), int(height)


def _capability(text: str) -> tuple[int, int]:
    digits = text.replace(".", "")
    if not digits.isdecimal() or len(digits) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not a compute capability, such as 87")
    return int(digits[:-1]), int(digits[-1])


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("benchmark", __doc__)
    add_model_option(parser.add_argument_group("model"))
    backend = parser.add_argument_group("backend")
    add_backend_options(backend)
    add_loaded_precision_options(backend)
    add_decode_option(backend)
    backend.add_argument("--spin", action="store_true", help="let waiting CPU threads spin")
    work = parser.add_argument_group("work")
    work.add_argument("--views", type=int, metavar="N", help="images in one prompt, 1 to 6 (1; compared: 1 and 6)")
    work.add_argument(
        "--resolution", type=_resolution, default="1280x720", metavar="WxH", help="size of each image (%(default)s)"
    )
    work.add_argument(
        "--max-tiles", type=int, default=1, metavar="N", help="tiles that a view is cut into (%(default)s)"
    )
    work.add_argument("--tokens", type=int, default=32, metavar="N", help="tokens of an answer (%(default)s)")
    work.add_argument("--runs", type=int, default=30, metavar="N", help="runs to take the median of (%(default)s)")
    other = parser.add_argument_group("other measurements")
    other.add_argument(
        "--compare-transformers",
        action="store_true",
        help="build engines, and compare them with transformers on this GPU",
    )
    other.add_argument(
        "--engines", default=COMPARED_ENGINES, metavar="V/T,...", help="vision/text precisions to compare (%(default)s)"
    )
    other.add_argument(
        "--references",
        default=COMPARED_REFERENCES,
        metavar="WAYS",
        help="ways of transformers, eager and compiled (%(default)s; '': none)",
    )
    other.add_argument(
        "--precisions",
        metavar="P,...",
        help="find the fastest precision on this GPU: builds and times each of fp16, bf16, fp8, int8, int4",
    )
    other.add_argument(
        "--calibration-images", type=Path, metavar="DIR", help="pictures to choose the scales of int4 with"
    )
    other.add_argument("--kernels", action="store_true", help="list the GPU kernels that each stage spends its time in")
    other.add_argument(
        "--kernel-resources",
        type=_capability,
        metavar="SM",
        help="list the registers and memory that this package's kernels take on a GPU of compute capability SM, such "
        "as 87; needs no GPU",
    )
    other.add_argument(
        "--speculation", action="store_true", help="time the checking of drafts, and compare the sources of drafts"
    )
    other.add_argument(
        "--reuse", action="store_true", help="time a further question about a frame, and the frame-change gate"
    )
    other.add_argument(
        "--context", type=int, default=320, metavar="N", help="tokens before a draft, for its cost (%(default)s)"
    )
    other.add_argument("--ros", action="store_true", help="time what ROS adds, and the node under load")
    other.add_argument(
        "--seconds", type=float, default=10.0, metavar="S", help="seconds of load for --ros (%(default)g)"
    )
    other.add_argument(
        "--project",
        choices=("all", *BOARDS),
        help="estimate times and memory on Jetson Orin boards; measures nothing, and needs no GPU",
    )
    other.add_argument(
        "--measured",
        type=Path,
        metavar="FILE",
        help="for --project: estimate with the efficiency that --compare-transformers --json FILE has measured",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write machine, settings and figures there too")
    output.add_argument(
        "--output", type=Path, metavar="DIR", help="directory for engines of --precisions (MODEL/precisions)"
    )
    output.add_argument("--chart", type=Path, metavar="FILE", help="draw the comparison as a PNG")
    return parser


if __name__ == "__main__":
    sys.exit(main())
