"""Export a model directory's vision encoder and text decoder to ONNX, and its draft head if it has one.

ros2 run litevlm_ros export_onnx --model models
ros2 run litevlm_ros export_onnx --model models/demo --precision fp8 --output demo_fp8
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from litevlm_ros.errors import LiteVLMError, while_writing
from litevlm_ros.model_directory import PLAIN, TEXT, VISION
from litevlm_ros.precision import PRECISIONS

CHOICES = (PLAIN, *PRECISIONS)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 after an error that it has explained on stderr."""
    options = _parser().parse_args(argv)
    precisions = {}
    if not options.skip_vision:
        precisions[VISION] = options.vision_precision or options.precision
    if not options.skip_text:
        precisions[TEXT] = options.text_precision or options.precision
    if not precisions:
        print("--skip-vision and --skip-text leave nothing to export; drop one of them", file=sys.stderr)
        return 1
    try:
        # Imported here, so that --help needs no torch.
        from litevlm_ros.convert.export import export_graphs
    except ImportError as error:
        print(f"Export needs torch, onnx and onnxscript ({error}); install them with "
              "`pip install 'litevlm_ros[convert,onnxruntime]'`", file=sys.stderr)  # fmt: skip
        return 1
    try:
        for graph in export_graphs(
            options.model,
            options.output or options.model,
            precisions,
            share=options.share_weights,
            check=not options.skip_check,
            images=options.calibration_images,
        ):
            shared = f" + {graph.shared_bytes / 1e6:.1f} MB shared" if graph.shared_bytes else ""
            checked = f"relative error {graph.error:.1e}, " if graph.error is not None else ""
            size = f"{graph.bytes / 1e6:.1f} MB{shared}"
            print(f"{graph.file}: {graph.precision}, {size}, {checked}{graph.seconds:.0f} s", flush=True)
            if graph.notes:
                print(f"  {'; '.join(graph.notes)}; calibration: {graph.calibration}", flush=True)
    except (LiteVLMError, OSError) as error:
        print(while_writing(options.output or options.model, error), file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="export_onnx", description="Export vision encoder and text decoder to ONNX.")
    files = parser.add_argument_group("files")
    files.add_argument(
        "--model", type=Path, default=Path("models"), metavar="DIR", help="model directory (%(default)s)"
    )
    files.add_argument("--output", type=Path, metavar="DIR", help="where the graphs go (default: the model directory)")
    parts = parser.add_argument_group("parts")
    parts.add_argument("--skip-vision", action="store_true", help="leave the vision encoder out")
    parts.add_argument("--skip-text", action="store_true", help="leave the text decoder and its draft head out")
    weights = parser.add_argument_group("weights")
    weights.add_argument(
        "--precision", choices=CHOICES, default=PLAIN, help="of both: fp32 runs best on a CPU (%(default)s)"
    )
    weights.add_argument("--vision-precision", choices=CHOICES, help="of the vision encoder alone")
    weights.add_argument("--text-precision", choices=CHOICES, help="of the text decoder alone")
    weights.add_argument(
        "--calibration-images",
        type=Path,
        metavar="DIR",
        help="pictures of what your cameras see, to scale quantized values with (default: rendered street scenes)",
    )
    weights.add_argument(
        "--share-weights",
        action="store_true",
        help="let the graphs read the checkpoint's safetensors instead of copying",
    )
    weights.add_argument("--skip-check", action="store_true", help="do not compare fp32 and fp16 graphs with torch")
    return parser


if __name__ == "__main__":
    sys.exit(main())
