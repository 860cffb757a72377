"""Export a model directory's vision encoder and text decoder to ONNX.

ros2 run litevlm_ros export_onnx --model models --dtype fp16
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from litevlm_ros.errors import LiteVLMError


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 after an error that it has explained on stderr."""
    options = _parser().parse_args(argv)
    if options.skip_vision and options.skip_text:
        print("--skip-vision and --skip-text leave nothing to export; drop one of them", file=sys.stderr)
        return 1
    try:
        # Imported here, so that --help needs no torch.
        from litevlm_ros.convert.model_export import export_text_decoder, export_vision_encoder
    except ImportError as error:
        print(f"Export needs torch, onnx and onnxscript ({error}); install them with "
              "`pip install 'litevlm_ros[convert,onnxruntime]'`", file=sys.stderr)  # fmt: skip
        return 1
    output = options.output or options.model
    try:
        for export, skip in ((export_vision_encoder, options.skip_vision), (export_text_decoder, options.skip_text)):
            if not skip:
                graph = export(
                    options.model, output, options.dtype, share=options.share_weights, check=not options.skip_check
                )
                shared = f" + {graph.shared_bytes / 1e6:.1f} MB shared" if graph.shared_bytes else ""
                checked = "not checked" if graph.error is None else f"relative error {graph.error:.1e}"
                print(f"{graph.file}: {options.dtype}, {graph.nodes} nodes, {graph.bytes / 1e6:.1f} MB{shared}, "
                      f"{checked}, {graph.seconds:.0f} s", flush=True)  # fmt: skip
    except LiteVLMError as error:
        print(error, file=sys.stderr)
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
    parts.add_argument("--skip-text", action="store_true", help="leave the text decoder out")
    weights = parser.add_argument_group("weights")
    weights.add_argument(
        "--dtype", choices=("fp32", "fp16"), default="fp32", help="fp32 for the CPU, fp16 for a GPU (%(default)s)"
    )
    weights.add_argument(
        "--share-weights",
        action="store_true",
        help="let the graphs read the checkpoint's safetensors instead of copying",
    )
    weights.add_argument("--skip-check", action="store_true", help="do not compare the graphs with torch")
    return parser


if __name__ == "__main__":
    sys.exit(main())
