"""Run node, six cameras and a client for a long time, and see whether memory or latency grow.

ros2 run litevlm_ros soak --minutes 20 --output soak_out

Writes soak.json and soak.png there. Ends with status 1 if memory is not flat, latency drifts, a question stays without
an answer or a camera without captions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from litevlm_ros.errors import ConfigError
from litevlm_ros.node.ros_environment import check_environment
from litevlm_ros.packages import ROS_ADVICE
from litevlm_ros.tools.command import add_model_option, end_on_signals, new_parser, run_command, say


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 if all stayed as it was, 1 if not, 2 where it could not run, 130 after Ctrl-C."""
    options = _parser().parse_args(argv)
    end_on_signals()
    return run_command(
        lambda: _run(options),
        prefix="soak: ",
        missing=f"soak: a soak needs ROS 2, the built package and matplotlib ({{error}}): {ROS_ADVICE}",
        packages=("matplotlib",),
        failed=2,
    )


def _run(options: argparse.Namespace) -> int:
    for flag in ("minutes", "rate", "ask_every"):
        if not getattr(options, flag) > 0:
            raise ConfigError(f"--{flag.replace('_', '-')} is {getattr(options, flag):g}; allowed: above 0")
    check_environment()
    # Imported here, so that --help works without ROS.
    from litevlm_ros.lab.benchmarking.soak import SoakSettings, soak

    settings = SoakSettings(options.minutes, options.rate, options.ask_every, options.model, options.output)
    return int(bool(soak(settings, say)))


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("soak", __doc__)
    parser.add_argument("--minutes", type=float, default=20.0, metavar="M", help="length in minutes (%(default)g)")
    parser.add_argument("--rate", type=float, default=30.0, metavar="HZ", help="rate of each camera (%(default)g)")
    parser.add_argument(
        "--ask-every", type=float, default=1.0, metavar="S", help="seconds between two questions (%(default)g)"
    )
    add_model_option(parser)
    parser.add_argument(
        "--output", type=Path, default=Path("soak_out"), metavar="DIR", help="directory to write (%(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
