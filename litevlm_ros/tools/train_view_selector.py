"""Train the learned view selector on the questions of the procedural street world.

ros2 run litevlm_ros train_view_selector --output models/demo/view_selector.onnx

Seeded; takes a few minutes on one CPU core. It draws questions only about scenes that no evaluation uses. What the
selector keeps and costs, `evaluate --view-selection` tells. Needs the packages of the `convert` extra.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from litevlm_ros.errors import ConfigError, LiteVLMError
from litevlm_ros.model_directory import VIEW_SELECTOR_GRAPH


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 after an error that it has explained on stderr."""
    options = _parser().parse_args(argv)
    try:
        _run(options)
    except LiteVLMError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    for name in ("scenes", "steps", "threads"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} is {getattr(options, name)}; allowed: from 1")
    try:
        import torch

        from litevlm_ros.lab.training import view_selector_training
    except ImportError as error:
        raise ConfigError(f"training needs PyTorch ({error}): `pip install 'litevlm_ros[convert]'`") from error
    from litevlm_ros.lab.training.view_choices import training_choices

    torch.set_num_threads(options.threads)
    choices = training_choices(options.scenes, options.seed)
    words = view_selector_training.vocabulary(choices)
    print(f"{len(choices)} questions, {len(words)} words", flush=True)
    model = view_selector_training.train(choices, words, options.steps, options.seed, print)
    view_selector_training.save(model, words, options.output)
    print(f"{options.output}: {options.output.stat().st_size / 1e3:.0f} kB")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train_view_selector", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path("models") / "demo" / VIEW_SELECTOR_GRAPH
    parser.add_argument("--output", type=Path, default=default, metavar="FILE", help="graph to write (%(default)s)")
    parser.add_argument("--scenes", type=int, default=3000, metavar="N", help="scenes to ask about (%(default)s)")
    parser.add_argument("--steps", type=int, default=2500, metavar="N", help="optimizer steps (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="other scenes and weights (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
