"""Train a draft head for the demo model and export it: what `speculation: head` drafts with.

ros2 run litevlm_ros train_draft_head --model models/demo

It learns from the model's own answers about scenes of the training world; the model itself does not change. Seeded: the
same command on the same machine gives the same head. Needs the packages of the `convert` extra, and no GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from litevlm_ros.errors import ConfigError, LiteVLMError


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 after an error that it has explained on stderr."""
    options = _parser().parse_args(argv)
    try:
        _run(options)
    except ImportError as error:
        print(f"Training needs torch, onnx and onnxscript ({error}); install them with "
              "`pip install 'litevlm_ros[convert,onnxruntime]'`", file=sys.stderr)  # fmt: skip
        return 1
    except LiteVLMError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    for name in ("scenes", "steps", "threads"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} is {getattr(options, name)}; allowed: from 1")
    # Here, so that --help works without PyTorch.
    import torch

    from litevlm_ros.convert.export import export_draft_head
    from litevlm_ros.lab.training.draft_features import record_answers, training_seeds, validation_seeds
    from litevlm_ros.lab.training.draft_head import HeadTraining

    torch.set_num_threads(options.threads)
    began = time.monotonic()
    training = HeadTraining(options.model, options.seed)
    answers = list(record_answers(options.model, training_seeds(options.seed, options.scenes), options.threads))
    held_out = list(record_answers(options.model, validation_seeds(options.scenes), options.threads))
    print(f"{len(answers)} answers about {options.scenes} scenes, {time.monotonic() - began:.0f} s", flush=True)
    training.run(answers, options.steps, lambda line: print(line, flush=True))
    shares = ", ".join(f"{share:.1%}" for share in training.accuracy(held_out))
    print(f"right on {len(held_out)} answers about other scenes, by place in a draft: {shares}")
    training.save(options.model)
    graph = export_draft_head(options.model, options.model, share=True)
    print(f"{graph.file}: {graph.bytes / 1e6:.1f} MB + {graph.shared_bytes / 1e6:.1f} MB shared, "
          f"relative error {graph.error:.1e}; {time.monotonic() - began:.0f} s in all")  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train_draft_head", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, default=Path("models/demo"), metavar="DIR", help="directory (%(default)s)"
    )
    parser.add_argument("--scenes", type=int, default=250, metavar="N", help="training scenes (%(default)s)")
    parser.add_argument("--steps", type=int, default=1200, metavar="N", help="optimizer steps (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of scenes and training (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
