"""Export a model directory's vision encoder and text decoder to ONNX, and its draft head if it has one.

ros2 run litevlm_ros export_onnx --model models
ros2 run litevlm_ros export_onnx --model models --precision int8
ros2 run litevlm_ros export_onnx --model models/demo --precision fp8 --output demo_fp8
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from litevlm_ros.model_directory import PLAIN
from litevlm_ros.packages import CONVERSION
from litevlm_ros.precision import CPU_PRECISIONS, GRAPH_PRECISIONS
from litevlm_ros.tools.command import (
    add_made_precision_options,
    add_model_option,
    add_part_options,
    made_precisions,
    new_parser,
    run_command,
    say,
)

if TYPE_CHECKING:
    from litevlm_ros.convert.calibration import Calibration

_RENDERED_FOR_CPU = 2
"""Rendered scenes for int4 on a CPU: a model of real size takes 10 s for each on two cores."""

CHOICES = (PLAIN, *GRAPH_PRECISIONS)

MISSING = "Export needs torch, onnx and onnxscript ({error})"
PACKAGES = (*CONVERSION, "onnxruntime")
"""The line for packages that are not installed, and their names, for `run_command`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 after an error that it has explained on stderr, or 130 if it was interrupted."""
    options = _parser().parse_args(argv)
    return run_command(lambda: _run(options), missing=MISSING, packages=PACKAGES)


def _run(options: argparse.Namespace) -> None:
    from litevlm_ros.lab.world.calibration import RENDERED, calibration_data

    rendered = RENDERED if options.exact else _RENDERED_FOR_CPU

    export_and_tell(
        options.model,
        options.output or options.model,
        made_precisions(options, options.precision, "export"),
        share=options.share_weights,
        check=not options.skip_check,
        calibration=partial(calibration_data, options.model, options.calibration_images, rendered),
        exact=options.exact,
    )


def export_and_tell(
    model: Path,
    output: Path,
    precisions: Mapping[str, str],
    *,
    share: bool = False,
    check: bool = True,
    calibration: Calibration | None = None,
    exact: bool = False,
) -> None:
    """Exports as `export_graphs` does, and prints each graph once it is written. Raises ImportError without torch."""
    # Imported here, so that --help needs no torch.
    from litevlm_ros.convert.export import export_graphs

    exported = export_graphs(model, output, precisions, share=share, check=check, calibration=calibration, exact=exact)
    for graph in exported:
        shared = f" + {graph.shared_bytes / 1e6:.1f} MB shared" if graph.shared_bytes else ""
        checked = f"relative error {graph.error:.1e}, " if graph.error is not None else ""
        size = f"{graph.bytes / 1e6:.1f} MB{shared}"
        say(f"{graph.file}: {graph.precision}, {size}, {checked}{graph.seconds:.0f} s")
        if graph.packed:
            chosen = f"; their scales were chosen with {graph.calibration}" if graph.calibration else ""
            arithmetic = "multiplied in 8 bits" if graph.precision in CPU_PRECISIONS else "restored to fp32 when loaded"
            say(f"  {graph.packed} matrices are stored as in an engine and {arithmetic}{chosen}")


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("export_onnx", __doc__)
    files = parser.add_argument_group("files")
    add_model_option(files, Path("models"))
    files.add_argument(
        "--output", type=Path, metavar="DIR", help="directory for the graphs (default: the model directory)"
    )
    add_part_options(parser.add_argument_group("parts"), "export")
    weights = parser.add_argument_group("weights")
    weights.add_argument(
        "--precision",
        choices=CHOICES,
        default=PLAIN,
        help="precision of both parts; int8 and int4 multiply in 8 bits, which is faster on CPUs with VNNI, AMX or "
        "ARM's dot product; fp8 stores weights as engines do and computes in fp32 (%(default)s)",
    )
    add_made_precision_options(weights, CHOICES)
    weights.add_argument(
        "--exact",
        action="store_true",
        help="write int8 and int4 as NAME_int8_exact.onnx, which computes in fp32 with the very numbers of an engine: "
        "as slow as fp32, to measure the accuracy of engines with",
    )
    weights.add_argument(
        "--calibration-images",
        type=Path,
        metavar="DIR",
        help="pictures of what your cameras see, to choose the scales of int4 with (default: rendered street scenes)",
    )
    weights.add_argument(
        "--share-weights",
        action="store_true",
        help="let the graphs read the checkpoint's safetensors instead of copying them",
    )
    weights.add_argument("--skip-check", action="store_true", help="do not compare graphs with torch")
    return parser


if __name__ == "__main__":
    sys.exit(main())
