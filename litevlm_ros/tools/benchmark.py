"""Measure a model on this describe: medians of each stage, of a token, and of a caption from image to text.

ros2 run litevlm_ros benchmark --model models/demo --views 1 --runs 20 --json benchmark.json
ros2 run litevlm_ros benchmark --model models --compare-transformers --chart comparison.png
ros2 run litevlm_ros benchmark --model models --precisions fp16,fp8,int4
ros2 run litevlm_ros benchmark --model models --kernels
ros2 run litevlm_ros benchmark --model models --project all
ros2 run litevlm_ros benchmark --ros --resolution 1280x720 --runs 100
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from litevlm_ros.backend import Backend
from litevlm_ros.config import BACKENDS, PipelineConfig, ReuseConfig
from litevlm_ros.errors import ConfigError, LiteVLMError
from litevlm_ros.lab.benchmarking.boards import BOARDS, project, projection_table
from litevlm_ros.lab.benchmarking.stages import CAMERAS, CAPTION_PROMPT, camera_image, measure, stages_table
from litevlm_ros.lab.benchmarking.workload import Workload
from litevlm_ros.machine import describe
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.precision import PRECISION_CHOICES, parse_precision_pair
from litevlm_ros.types import View

COMPARED_ENGINES = "fp16/fp16,fp8/fp8,fp16/int4"
COMPARED_VIEWS = (1, 6)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 after an error that it has explained on stderr."""
    options = _parser().parse_args(argv)
    try:
        _check(options)
        if options.project:
            report = _project(options)
        elif options.compare_transformers:
            report = _compare(options)
        elif options.precisions:
            report = _precisions(options)
        elif options.kernels:
            report = _kernels(options)
        elif options.speculation:
            report = _speculation(options)
        elif options.reuse:
            report = _reuse(options)
        elif options.ros:
            report = _ros(options)
        else:
            report = _run(options)
            print(stages_table(report))
    except LiteVLMError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def _check(options: argparse.Namespace) -> None:
    for name, most in (("views", len(CAMERAS)), ("runs", None), ("tokens", None), ("context", None), ("seconds", None)):
        value = getattr(options, name)
        if value is not None and (value < 1 or (most is not None and value > most)):
            raise ConfigError(f"--{name} is {value}; allowed: from 1" + (f" to {most}" if most else ""))


def _config(options: argparse.Namespace) -> PipelineConfig:
    return PipelineConfig(
        model_dir=options.model,
        backend=options.backend,
        vision_precision=options.vision_precision,
        text_precision=options.text_precision,
        threads=options.threads,
        spin_threads=options.spin,
        max_tiles=options.max_tiles,
        reuse=ReuseConfig(frames=0),  # each run stands for a new frame
    )


def _views(options: argparse.Namespace) -> list[View]:
    cameras = CAMERAS[: options.views or 1]
    return [View(camera, camera_image(index, *options.resolution)) for index, camera in enumerate(cameras)]


def _run(options: argparse.Namespace) -> dict[str, Any]:
    views = _views(options)
    pipeline = Pipeline.from_config(_config(options))
    try:
        results = measure(pipeline, views, options.tokens, options.runs)
        return {
            "describe": describe(),
            "model": str(options.model),
            "backend": pipeline.backend.description,
            "work": {
                "views": len(views),
                "resolution": list(options.resolution),
                "max_tiles": options.max_tiles,
                "tokens": options.tokens,
                "runs": options.runs,
            },
            "device_memory": dict(pipeline.backend.memory()),
            "results": {name: asdict(figures) for name, figures in results.items()},
        }
    finally:
        pipeline.close()


def _compare(options: argparse.Namespace) -> dict[str, Any]:
    # Here, because they import what a robot does not have.
    from litevlm_ros.lab.benchmarking.comparison import REFERENCES, compare, table

    engines = [parse_precision_pair("--engines", text) for text in options.engines.split(",") if text]
    references = [way for way in options.references.split(",") if way]
    for way in references:
        if way not in REFERENCES:
            raise ConfigError(f"--references has {way!r}; allowed: {', '.join(REFERENCES)}")
    views = [options.views] if options.views else COMPARED_VIEWS
    comparison = compare(options.model, engines, references, views, options.tokens, options.runs)
    print(table(comparison))
    if options.chart:
        from litevlm_ros.lab.benchmarking.chart import draw_comparison

        draw_comparison(comparison, options.chart)
    return comparison.json()


def _ros(options: argparse.Namespace) -> dict[str, Any]:
    try:
        from litevlm_ros.lab.benchmarking import ros_load, ros_overhead
    except ImportError as error:
        raise ConfigError(f"--ros needs ROS 2 and the built package ({error}): make setup, . scripts/env.sh") from error
    report = ros_overhead.report(options.resolution, options.runs)
    print(ros_overhead.table(report))
    image = camera_image(0, *options.resolution)
    report["load"] = ros_load.measure("jpeg", image, options.model, options.seconds)
    print(ros_load.table(report["load"]))
    return report


def _precisions(options: argparse.Namespace) -> dict[str, Any]:
    # Here, because building imports what a robot does not need.
    from litevlm_ros.lab.benchmarking.precisions import precision_times_table, time_precisions

    host = describe()
    if not host["gpu"]:
        raise ConfigError("--precisions times TensorRT engines and there is no NVIDIA GPU here, or its driver does not "
                          "start; on a CPU, `evaluate --precisions` tells what fewer bits cost")  # fmt: skip
    results, failed = time_precisions(
        _config(options),
        options.output or options.model / "precisions",
        options.precisions.split(","),
        _views(options),
        options.tokens,
        options.runs,
        images=options.calibration_images,
        inspect=_tracer(options) if options.kernels else None,
    )
    print(f"{host['gpu']}; {options.model}, {options.views or 1} views, medians of {options.runs} in ms")
    print(precision_times_table(results, options.tokens))
    return {"describe": host, "precisions": [asdict(row) for row in results], "left_out": failed}


def _kernels(options: argparse.Namespace) -> dict[str, Any]:
    trace = _tracer(options)
    pipeline = Pipeline.from_config(_config(options))
    try:
        print(pipeline.backend.description)
        kernels = trace(pipeline.backend)
        return {"describe": describe(), "backend": pipeline.backend.description, "kernels": kernels}
    finally:
        pipeline.close()


def _tracer(options: argparse.Namespace) -> Callable[[Backend], dict[str, Any]]:
    """Prints where the time of each stage goes, and returns it."""
    try:
        from litevlm_ros.lab.benchmarking.kernels import kernel_table, trace_stages
    except ImportError as error:
        raise ConfigError(f"--kernels needs PyTorch's profiler ({error}): `pip install torch`") from error
    work = Workload.of(options.model, _views(options), CAPTION_PROMPT, options.max_tiles)

    def trace(backend: Backend) -> dict[str, Any]:
        stages = trace_stages(backend, work, options.tokens)
        print(kernel_table(stages), flush=True)
        return {stage: [asdict(kernel) for kernel in kernels] for stage, kernels in stages.items()}

    return trace


def _speculation(options: argparse.Namespace) -> dict[str, Any]:
    from litevlm_ros.lab.benchmarking import speculation, verification

    pipelines, obstacle = speculation.load_sources(_config(options))
    plain = pipelines[speculation.PLAIN]
    try:
        costs = verification.time_verification(
            plain.backend.text, options.context, plain.model.text.vocab_size, options.runs
        )
        print(f"{plain.backend.description}\n{verification.verification_table(costs)}")
        compared = speculation.compare_sources(pipelines, options.runs)
        print(speculation.comparison_table(compared))
        if obstacle:
            print(f"no draft head: {obstacle}")
        return {
            "describe": describe(),
            "backend": plain.backend.description,
            "context": options.context,
            "verifications": [asdict(cost) for cost in costs],
            "scenes": options.runs,
            **speculation.comparison_json(compared),
        }
    finally:
        for pipeline in pipelines.values():
            pipeline.close()


def _reuse(options: argparse.Namespace) -> dict[str, Any]:
    from litevlm_ros.lab.benchmarking.reuse import measure_reuse, reuse_table

    figures = measure_reuse(_config(options), options.views or 1, options.resolution, options.runs)
    print(reuse_table(figures))
    return {"describe": describe(), "model": str(options.model), **figures.json()}


def _project(options: argparse.Namespace) -> dict[str, Any]:
    model = ModelConfig.from_directory(options.model)
    boards = BOARDS.values() if options.project == "all" else [BOARDS[options.project]]
    rows = [row for board in boards for row in project(model, board, tiles=options.views or 1)]
    print(projection_table(rows))
    return {"model": str(options.model), "estimates": [asdict(row) for row in rows]}


def _resolution(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, such as 1280x720")
    return int(width), int(height)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmark", description="Measure a model on this describe.")
    model = parser.add_argument_group("model")
    model.add_argument("--model", type=Path, default=Path("models/demo"), metavar="DIR", help="directory (%(default)s)")
    backend = parser.add_argument_group("backend")
    backend.add_argument("--backend", choices=BACKENDS, default="auto", help="what runs it (%(default)s)")
    for part in ("vision", "text"):
        backend.add_argument(
            f"--{part}-precision", choices=PRECISION_CHOICES, default="auto", help="TensorRT engine (%(default)s)"
        )
    backend.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads (default: one for each core)")
    backend.add_argument("--spin", action="store_true", help="let waiting CPU threads spin")
    work = parser.add_argument_group("work")
    work.add_argument("--views", type=int, metavar="N", help="images in one prompt, 1 to 6 (1; compared: 1 and 6)")
    work.add_argument(
        "--resolution", type=_resolution, default="1280x720", metavar="WxH", help="size of each image (%(default)s)"
    )
    work.add_argument("--max-tiles", type=int, default=1, metavar="N", help="tiles of one view (%(default)s)")
    work.add_argument("--tokens", type=int, default=32, metavar="N", help="tokens of an answer (%(default)s)")
    work.add_argument("--runs", type=int, default=30, metavar="N", help="runs to take the median of (%(default)s)")
    other = parser.add_argument_group("other measurements")
    other.add_argument(
        "--compare-transformers", action="store_true", help="TensorRT engines against transformers on this GPU"
    )
    other.add_argument(
        "--engines", default=COMPARED_ENGINES, metavar="V/T,...", help="vision/text precisions to compare (%(default)s)"
    )
    other.add_argument(
        "--references", default="eager,compiled", metavar="WAYS", help="ways of transformers (%(default)s; '': none)"
    )
    other.add_argument(
        "--precisions",
        metavar="P,...",
        help="which precision is fastest on this GPU: builds and times each of fp16, fp8, int8, int4, and FP8 in other "
        "forms: fp8-channel, fp8-weights",
    )
    other.add_argument(
        "--calibration-images", type=Path, metavar="DIR", help="pictures to scale quantized values of --precisions with"
    )
    other.add_argument("--kernels", action="store_true", help="which GPU kernels each stage spends its time in")
    other.add_argument(
        "--speculation", action="store_true", help="what checking drafts costs, and each source of them brings"
    )
    other.add_argument(
        "--reuse", action="store_true", help="what a further question about a frame saves; the frame-change gate's time"
    )
    other.add_argument(
        "--context", type=int, default=320, metavar="N", help="tokens before a draft, for its cost (%(default)s)"
    )
    other.add_argument("--ros", action="store_true", help="what ROS adds, and the node under load")
    other.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of the load (%(default)g)")
    other.add_argument("--project", choices=("all", *BOARDS), help="estimate for Jetson Orin boards; measures nothing")
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write describe, settings and figures there too")
    output.add_argument(
        "--output", type=Path, metavar="DIR", help="where --precisions keeps engines (default: MODEL/precisions)"
    )
    output.add_argument("--chart", type=Path, metavar="FILE", help="draw the comparison as a PNG")
    return parser


if __name__ == "__main__":
    sys.exit(main())
