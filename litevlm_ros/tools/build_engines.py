"""Build TensorRT engines of a vision encoder and a text decoder; also installed as convert_to_tensorrt.

ros2 run litevlm_ros build_engines --fp8
ros2 run litevlm_ros build_engines --precision fp16 --skip-text

An engine belongs to one GPU and one version of TensorRT, which the JSON file beside it names, and reads its weights
from the model directory unless their precision packs them. Engines that are there and fit are kept.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from litevlm_ros.engines.shapes import DEFAULT_CONTEXT, DEFAULT_TILES, Sizes
from litevlm_ros.errors import EngineError
from litevlm_ros.machine import parse_capability
from litevlm_ros.model_directory import PLAIN
from litevlm_ros.precision import PRECISIONS
from litevlm_ros.tools.command import (
    add_made_precision_options,
    add_model_option,
    add_part_options,
    explain_missing,
    made_precisions,
    new_parser,
    run_command,
    say,
)
from litevlm_ros.tools.export_onnx import MISSING, PACKAGES, export_and_tell


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 after an error that it has explained on stderr, or 130 if it was interrupted."""
    options = _parser().parse_args(argv)
    return run_command(lambda: _run(options), interrupted="interrupted; engines that were finished are kept")


def _run(options: argparse.Namespace) -> None:
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    # TensorRT warns about every graph with int64 inputs, and its errors are part of ours.
    logging.getLogger("litevlm_ros.tensorrt").setLevel(logging.CRITICAL)
    precisions = made_precisions(options, "fp8" if options.fp8 else options.precision, "build")
    # Imported here, so that --help is quick.
    from litevlm_ros.engines.build import BuildRequest, build_engines
    from litevlm_ros.lab.world.calibration import calibration_data

    build_engines(
        BuildRequest(
            model=options.model,
            output=options.output or options.model,
            precisions=precisions,
            sizes=Sizes(options.max_tiles, options.max_context),
            target=parse_capability(options.target_sm) if options.target_sm else None,
            calibration=partial(calibration_data, options.model, options.calibration_images),
            recalibrate=options.calibration_images is not None,
            workspace_mib=options.workspace_mib,
            force=options.force,
            strict=options.strict,
            check_memory=not options.skip_memory_check,
        ),
        say,
    )
    if options.onnx:
        try:
            export_and_tell(options.model, options.output or options.model, dict.fromkeys(precisions, PLAIN))
        except ImportError as error:
            raise EngineError(explain_missing(MISSING, PACKAGES, error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("build_engines", __doc__)
    precision = parser.add_argument_group("precision")
    choice = precision.add_mutually_exclusive_group()
    choice.add_argument("--precision", choices=PRECISIONS, default="fp16", help="precision of both parts (%(default)s)")
    choice.add_argument(
        "--fp8",
        action="store_true",
        help="--precision fp8: FP8 storage, at half the memory, and FP16 arithmetic, on every GPU",
    )
    add_made_precision_options(precision, PRECISIONS)
    precision.add_argument(
        "--strict",
        action="store_true",
        help="fail where the GPU does not have that precision (only BF16 is not on every GPU)",
    )
    precision.add_argument(
        "--calibration-images",
        type=Path,
        metavar="DIR",
        help="pictures of what your cameras see, to choose the scales of int4 with (default: rendered street scenes)",
    )
    add_part_options(parser.add_argument_group("parts"), "build")
    sizes = parser.add_argument_group("sizes")
    sizes.add_argument(
        "--max-tiles", type=int, default=DEFAULT_TILES, metavar="N", help="most tiles of all views (%(default)s)"
    )
    sizes.add_argument(
        "--max-context",
        type=int,
        default=0,
        metavar="N",
        help=f"most tokens of images, question and answer (0: {DEFAULT_CONTEXT}, or what the model has)",
    )
    build = parser.add_argument_group("build")
    build.add_argument(
        "--target-sm", metavar="SM", help="compute capability to build for, such as 89 (default: the GPU at hand)"
    )
    build.add_argument(
        "--workspace-mib", type=int, default=0, metavar="N", help="most memory of one layer in MiB (0: no bound)"
    )
    build.add_argument("--force", action="store_true", help="build also what is up to date")
    build.add_argument("--skip-memory-check", action="store_true", help="build even if memory seems to be short")
    files = parser.add_argument_group("files")
    add_model_option(files, Path("models"))
    files.add_argument(
        "--output", type=Path, metavar="DIR", help="directory for engines and graphs (default: the model directory)"
    )
    files.add_argument(
        "--onnx",
        action="store_true",
        help="also write vision_encoder.onnx and text_decoder.onnx, which run on a CPU, as export_onnx does",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
