"""Train the scorer of `token_selection: scorer`, which finds visual tokens that the demo model's answers do not need.

ros2 run litevlm_ros train_token_scorer --output models/demo

The model itself stays as it is. Seeded: the same command gives the same scorer, in some minutes of one CPU thread.
Needs PyTorch, onnx and onnxscript.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from litevlm_ros.model_directory import SCORER_GRAPH, demo_model_directory
from litevlm_ros.packages import CONVERSION
from litevlm_ros.tools.command import add_model_option, add_threads_option, new_parser, run_command, say

_NEEDS_TORCH = "training needs PyTorch, onnx and onnxscript ({error})"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 after an error that it has explained on stderr."""
    options = _parser().parse_args(argv)
    return run_command(lambda: _run(options), missing=_NEEDS_TORCH, packages=(*CONVERSION, "onnxruntime"))


def _run(options: argparse.Namespace) -> None:
    # Imported late, so that --help works without PyTorch.
    from litevlm_ros.convert.onnx_check import check_scorer_graph
    from litevlm_ros.convert.onnx_graphs import save_graph
    from litevlm_ros.convert.token_scorer import scorer_graph
    from litevlm_ros.lab.training.token_scorer import ScorerTraining, train_scorer

    model = options.model or demo_model_directory()
    training = ScorerTraining(model, options.steps, options.views, options.learning_rate, options.seed, options.threads)
    scorer = train_scorer(training, say)
    file = (options.output or model) / SCORER_GRAPH
    save_graph(scorer_graph(scorer), file, lambda made: check_scorer_graph(made, scorer))
    say(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("train_token_scorer", __doc__)
    add_model_option(parser)
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where to write token_scorer.onnx (default: --model)"
    )
    parser.add_argument("--steps", type=int, default=60, metavar="N", help="optimizer steps (%(default)s)")
    parser.add_argument("--views", type=int, default=8, metavar="N", help="views per step (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, metavar="R", help="at its highest (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="other scenes for each S (%(default)s)")
    add_threads_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
