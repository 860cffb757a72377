"""Train the scorer that `token_selection: scorer` needs: which visual tokens the demo world's answers can do without.

ros2 run litevlm_ros train_token_scorer --output models/demo

The model itself stays as it is. Seeded: the same command gives the same scorer, in some minutes of one CPU thread.
Needs the packages of the `convert` extra.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from litevlm_ros.errors import LiteVLMError
from litevlm_ros.model_directory import demo_model_directory


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 after an error that it has explained on stderr."""
    parser = argparse.ArgumentParser(
        prog="train_token_scorer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, metavar="DIR", help="directory (default: the demo model)")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where to write token_scorer.onnx (default: --model)"
    )
    parser.add_argument("--steps", type=int, default=60, metavar="N", help="optimizer steps (%(default)s)")
    parser.add_argument("--views", type=int, default=8, metavar="N", help="views per step (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, metavar="R", help="at its highest (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="other scenes for each S (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (%(default)s)")
    options = parser.parse_args(argv)
    try:
        _run(options)
    except LiteVLMError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    # Here, so that --help works without PyTorch.
    import torch

    from litevlm_ros.convert.onnx_graphs import save_graph
    from litevlm_ros.convert.token_scorer import scorer_graph
    from litevlm_ros.lab.training.token_scorer import ScorerTraining, train_scorer
    from litevlm_ros.model_directory import SCORER_GRAPH

    torch.set_num_threads(options.threads)
    model = options.model or demo_model_directory()
    training = ScorerTraining(model, options.steps, options.views, options.learning_rate, options.seed)
    scorer = train_scorer(training, lambda line: print(line, flush=True))
    file = (options.output or model) / SCORER_GRAPH
    save_graph(scorer_graph(scorer), file)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
