"""Train a draft head for the demo model and export it: what `speculation: head` drafts with.

ros2 run litevlm_ros train_draft_head --model models/demo

It learns from the model's own answers about scenes of the training world; the model itself does not change. Seeded: the
same command on the same machine gives the same head. Needs PyTorch, onnx and onnxscript, and no GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.packages import CONVERSION
from litevlm_ros.tools.command import (
    add_model_option,
    add_threads_option,
    new_parser,
    require_positive,
    run_command,
    say,
)

_NEEDS_TORCH = "Training needs torch, onnx and onnxscript ({error})"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 after an error that it has explained on stderr."""
    options = _parser().parse_args(argv)
    return run_command(lambda: _run(options), missing=_NEEDS_TORCH, packages=(*CONVERSION, "onnxruntime"))


def _run(options: argparse.Namespace) -> None:
    require_positive(options, "scenes", "steps", "threads")
    # Imported late, so that --help works without PyTorch.
    from litevlm_ros.convert.export import export_draft_head
    from litevlm_ros.lab.training.draft_features import record_answers
    from litevlm_ros.lab.training.draft_head import HeadTraining
    from litevlm_ros.lab.world.splits import draft_head_seeds, draft_head_validation_seeds

    options.model = options.model or demo_model_directory()
    began = time.monotonic()
    training = HeadTraining(options.model, options.seed, options.threads)
    answers = list(record_answers(options.model, draft_head_seeds(options.scenes, options.seed), options.threads))
    held_out = list(record_answers(options.model, draft_head_validation_seeds(options.scenes), options.threads))
    say(f"{len(answers)} answers about {options.scenes} scenes, {time.monotonic() - began:.0f} s")
    training.run(answers, options.steps, say)
    shares = ", ".join(f"{share:.1%}" for share in training.accuracy(held_out))
    say(f"right on {len(held_out)} answers about other scenes, by place in a draft: {shares}")
    training.save(options.model)
    graph = export_draft_head(options.model, options.model, share=True)
    say(
        f"{graph.file}: {graph.bytes / 1e6:.1f} MB + {graph.shared_bytes / 1e6:.1f} MB shared, "
        f"relative error {graph.error:.1e}; {time.monotonic() - began:.0f} s in all"
    )


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("train_draft_head", __doc__)
    add_model_option(parser)
    parser.add_argument("--scenes", type=int, default=250, metavar="N", help="training scenes (%(default)s)")
    parser.add_argument("--steps", type=int, default=1200, metavar="N", help="optimizer steps (%(default)s)")
    add_threads_option(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of scenes and training (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
