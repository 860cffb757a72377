"""Train the demo model on the procedural street world.

Seeded and resumable: a run that reaches --time-limit saves a checkpoint, and the same command goes on from it. Needs
PyTorch, transformers and matplotlib, and in practice a GPU.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from litevlm_ros.tools.command import new_parser, run_command, say

_NEEDS_TORCH = "training needs PyTorch, transformers and matplotlib ({error})"
_PACKAGES = ("torch", "transformers", "matplotlib", "tqdm")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 after an error that it has explained on stderr."""
    options = _parser().parse_args(argv)
    return run_command(lambda: _run(options), missing=_NEEDS_TORCH, packages=_PACKAGES)


def _run(options: argparse.Namespace) -> None:
    # Imported late, so that --help works without PyTorch.
    from litevlm_ros.lab.training.trainer import Training, TrainingConfig

    options.work.mkdir(parents=True, exist_ok=True)
    done = Training(TrainingConfig(**vars(options))).run()
    say("training is complete" if done else "stopped at the time limit; the same command continues")


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("train_demo_model", __doc__)
    parser.add_argument("--output", type=Path, default=Path("models/demo"), help="model directory to write")
    parser.add_argument(
        "--work", type=Path, default=Path("demo_training"), help="directory of checkpoint, log and loss curve"
    )
    parser.add_argument("--steps", type=int, default=8400, help="optimizer steps in all")
    parser.add_argument("--scenes", type=int, default=48, help="scenes (of six views) per step")
    parser.add_argument("--buffer", type=int, default=40000, help="scenes kept on the device for reuse")
    parser.add_argument("--warm-buffer", type=int, default=1200, help="scenes to wait for before the first step")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=15, help="processes that draw scenes")
    parser.add_argument("--time-limit", type=float, default=math.inf, help="seconds after which to save and stop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="", help="cuda or cpu; the default is cuda where there is one")
    parser.add_argument("--compile", action="store_true", help="compile the training step")
    return parser


if __name__ == "__main__":
    sys.exit(main())
