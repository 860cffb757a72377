"""Build TensorRT engines of a model directory; also installed as convert_to_tensorrt.

ros2 run litevlm_ros build_engines --fp8
ros2 run litevlm_ros build_engines --precision fp16 --skip-text
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from litevlm_ros.engines.profiles import DEFAULT_CONTEXT, DEFAULT_TILES, Sizes
from litevlm_ros.errors import LiteVLMError, while_writing
from litevlm_ros.machine import parse_capability
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.precision import FP8_FORMS, PRECISIONS


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 after an error that it has explained on stderr, or 130 if it was interrupted."""
    options = _parser().parse_args(argv)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    # Its warnings are about every graph with int64 inputs; its errors are part of ours.
    logging.getLogger("litevlm_ros.tensorrt").setLevel(logging.CRITICAL)
    common = "fp8" if options.fp8 else options.precision
    precisions = {}
    if not options.skip_vision:
        precisions[VISION] = options.vision_precision or common
    if not options.skip_text:
        precisions[TEXT] = options.text_precision or common
    if not precisions:
        print("--skip-vision and --skip-text leave nothing to build; drop one of them", file=sys.stderr)
        return 1
    # Imported here, so that --help is quick.
    from litevlm_ros.engines.build import Request, build_engines

    try:
        build_engines(
            Request(
                model=options.model,
                output=options.output or options.model,
                precisions=precisions,
                sizes=Sizes(options.max_tiles, options.max_context),
                target=parse_capability(options.target_sm) if options.target_sm else None,
                images=options.calibration_images,
                fp8_form=options.fp8_form,
                workspace_mib=options.workspace_mib,
                force=options.force,
                strict=options.strict,
                check_memory=not options.skip_memory_check,
            ),
            _tell,
        )
    except (LiteVLMError, OSError) as error:
        print(while_writing(options.output or options.model, error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; engines that were finished are kept", file=sys.stderr)
        return 130
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build_engines",
        description="Build TensorRT engines of a vision encoder and a text decoder. An engine belongs to one GPU and "
        "one version of TensorRT; the JSON file beside it says which. Engines that are there and fit are kept.",
    )
    precision = parser.add_argument_group("precision")
    choice = precision.add_mutually_exclusive_group()
    choice.add_argument("--precision", choices=PRECISIONS, default="fp16", help="of both parts (%(default)s)")
    choice.add_argument(
        "--fp8",
        action="store_true",
        help="--precision fp8. A GPU without FP8, such as an Orin's, gets the best engines of at most that size",
    )
    precision.add_argument("--vision-precision", choices=PRECISIONS, help="of the vision encoder alone")
    precision.add_argument("--text-precision", choices=PRECISIONS, help="of the text decoder alone")
    precision.add_argument(
        "--fp8-form",
        choices=FP8_FORMS,
        default=FP8_FORMS[0],
        help="what FP8 scales: whole tensors, each output of the weights, or weights alone (%(default)s); "
        "`benchmark --precisions` tells which is fastest here",
    )
    precision.add_argument("--strict", action="store_true", help="fail where the GPU does not have that precision")
    precision.add_argument(
        "--calibration-images",
        type=Path,
        metavar="DIR",
        help="pictures of what your cameras see, to scale quantized values with (default: rendered street scenes)",
    )
    parts = parser.add_argument_group("parts")
    parts.add_argument("--skip-vision", action="store_true", help="leave the vision encoder as it is")
    parts.add_argument("--skip-text", action="store_true", help="leave the text decoder as it is")
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
    files.add_argument(
        "--model", type=Path, default=Path("models"), metavar="DIR", help="model directory (%(default)s)"
    )
    files.add_argument("--output", type=Path, metavar="DIR", help="where to put graphs and engines (default: --model)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
