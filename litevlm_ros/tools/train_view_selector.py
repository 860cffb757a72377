"""Train the learned view selector on the questions of the procedural street world.

ros2 run litevlm_ros train_view_selector --output models/demo/view_selector.onnx

Seeded; takes a few minutes on one CPU core. It draws questions only about scenes that no evaluation uses. `evaluate
--view-selection` measures what the selector keeps and costs. Needs PyTorch, onnx and onnxscript.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from litevlm_ros.model_directory import VIEW_SELECTOR_GRAPH, demo_model_directory
from litevlm_ros.packages import CONVERSION
from litevlm_ros.tools.command import add_threads_option, new_parser, require_positive, run_command, say

_NEEDS_TORCH = "training needs PyTorch, onnx and onnxscript ({error})"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 after an error that it has explained on stderr."""
    options = _parser().parse_args(argv)
    return run_command(lambda: _run(options), missing=_NEEDS_TORCH, packages=CONVERSION)


def _run(options: argparse.Namespace) -> None:
    require_positive(options, "scenes", "steps", "threads")
    # Imported late, so that --help works without PyTorch.
    from litevlm_ros.lab.training.view_choices import training_choices
    from litevlm_ros.lab.training.view_selector import save, train, vocabulary

    choices = training_choices(options.scenes, options.seed)
    words = vocabulary(choices)
    say(f"{len(choices)} questions, {len(words)} words")
    model = train(choices, words, options.steps, options.seed, say, options.threads)
    output = options.output or demo_model_directory() / VIEW_SELECTOR_GRAPH
    save(model, words, output)
    say(f"{output}: {output.stat().st_size / 1e3:.0f} kB")


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("train_view_selector", __doc__)
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help=f"graph to write ({VIEW_SELECTOR_GRAPH} of the demo model)"
    )
    parser.add_argument("--scenes", type=int, default=3000, metavar="N", help="scenes to ask about (%(default)s)")
    parser.add_argument("--steps", type=int, default=2500, metavar="N", help="optimizer steps (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="other scenes and weights (%(default)s)")
    add_threads_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
