"""Export a model directory's vision encoder and text decoder to ONNX, and its draft head if it has one.

ros2 run litevlm_ros export_onnx --model models
ros2 run litevlm_ros export_onnx --model models/demo --precision fp8 --output demo_fp8
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from litevlm_ros.model_directory import PLAIN
from litevlm_ros.precision import PRECISIONS
from litevlm_ros.tools.command import (
    add_made_precision_options,
    add_model_option,
    add_part_options,
    made_precisions,
    new_parser,
    run_command,
    say,
)

CHOICES = (PLAIN, *PRECISIONS)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 after an error that it has explained on stderr, or 130 if it was interrupted."""
    options = _parser().parse_args(argv)
    return run_command(
        lambda: _run(options),
        missing="Export needs torch, onnx and onnxscript ({error}); install them with "
        "`pip install 'litevlm_ros[convert,onnxruntime]'`",
    )


def _run(options: argparse.Namespace) -> None:
    precisions = made_precisions(options, options.precision, "export")
    # Imported here, so that --help needs no torch.
    from litevlm_ros.convert.export import export_graphs
    from litevlm_ros.lab.world.calibration import calibration_data

    for graph in export_graphs(
        options.model,
        options.output or options.model,
        precisions,
        share=options.share_weights,
        check=not options.skip_check,
        calibration=partial(calibration_data, options.model, options.calibration_images),
    ):
        shared = f" + {graph.shared_bytes / 1e6:.1f} MB shared" if graph.shared_bytes else ""
        checked = f"relative error {graph.error:.1e}, " if graph.error is not None else ""
        size = f"{graph.bytes / 1e6:.1f} MB{shared}"
        say(f"{graph.file}: {graph.precision}, {size}, {checked}{graph.seconds:.0f} s")
        if graph.notes:
            say(f"  {'; '.join(graph.notes)}; calibration: {graph.calibration}")


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
        help="precision of both parts; fp32 runs best on a CPU (%(default)s)",
    )
    add_made_precision_options(weights, CHOICES)
    weights.add_argument(
        "--calibration-images",
        type=Path,
        metavar="DIR",
        help="pictures of what your cameras see, to scale quantized values with (default: rendered street scenes)",
    )
    weights.add_argument(
        "--share-weights",
        action="store_true",
        help="let the graphs read the checkpoint's safetensors instead of copying them",
    )
    weights.add_argument("--skip-check", action="store_true", help="do not compare fp32 and fp16 graphs with torch")
    return parser


if __name__ == "__main__":
    sys.exit(main())
