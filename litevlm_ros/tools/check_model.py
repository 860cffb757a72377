"""Tell which files of a model directory have changed since they were made, or accept them as they are.

ros2 run litevlm_ros check_model --model models
ros2 run litevlm_ros check_model --model models --accept

The status is 1 if a file has changed or is missing. The tools that download, export and train list each file's SHA-256
in checksums.json, and a model with a changed file is not loaded. --accept lists all files of the model as they are: use
it after you have edited a file on purpose, or for a model that you put together by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from litevlm_ros.checksums import accept, changed_files, listed
from litevlm_ros.errors import ConfigError
from litevlm_ros.mending import accept_command, mend_advice
from litevlm_ros.model_directory import CHECKSUMS, demo_model_directory
from litevlm_ros.tools.command import add_model_option, new_parser, note, run_command, say


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 if a file has changed or after an error that it has explained on stderr."""
    options = _parser().parse_args(argv)
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    model: Path = options.model or demo_model_directory()
    if not model.is_dir():
        raise ConfigError(f"--model {model} is not a directory; give the directory of a model")
    if options.accept:
        say(f"{model / CHECKSUMS}: {len(accept(model))} files are listed as they are")
        return 0
    names = listed(model)
    if not names:
        raise ConfigError(
            f"{model} has no {CHECKSUMS}, so changes of its files are not noticed; `{accept_command(model)}` makes one "
            "of the files as they are"
        )
    changed = changed_files(model)
    for name, difference in changed.items():
        note(f"{model / name} has changed: {difference}. {mend_advice(model, name)}")
    if changed:
        note(f"If you changed them on purpose: `{accept_command(model)}`")
        return 1
    say(f"{model}: {len(names)} files are as they were made")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("check_model", __doc__)
    add_model_option(parser)
    parser.add_argument("--accept", action="store_true", help="list the checksums of all files as they are")
    return parser


if __name__ == "__main__":
    sys.exit(main())
