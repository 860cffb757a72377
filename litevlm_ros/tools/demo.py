"""Start cameras and node in processes of their own, show captions, ask three questions, and draw a picture of it all.

ros2 run litevlm_ros demo --seconds 20 --output demo_out
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from litevlm_ros.tools.command import end_on_signals, run_command

_NEEDS_ROS = "The demo needs ROS 2 and the built package ({error}): run make setup, then . scripts/env.sh"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 if captions and answers arrived, 1 if not, 130 after Ctrl-C."""
    options = _parser().parse_args(argv)
    end_on_signals()
    return run_command(lambda: _run(options), prefix="demo: ", missing=_NEEDS_ROS)


def _run(options: argparse.Namespace) -> int:
    # Imported late, so that --help works without ROS.
    from litevlm_ros.lab.demo.run import run_demo

    return 0 if run_demo(options.seconds, options.video, options.output) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo", description="Run cameras and node, and ask three questions.")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="how long to run (%(default)g)")
    parser.add_argument("--video", type=Path, metavar="FILE", help="show the node this video, not the rendered street")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo_out"),
        metavar="DIR",
        help="for the picture and the logs (%(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
