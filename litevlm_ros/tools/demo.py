"""Cameras and node in processes of their own, captions as they come, three questions, and a picture of it all.

ros2 run litevlm_ros demo --seconds 20 --output demo_out
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from litevlm_ros.errors import LiteVLMError
from litevlm_ros.processes import Child

if TYPE_CHECKING:
    from litevlm_ros.lab.demo.run import Run

NODE_PARAMETERS = ("transport:=compressed", "caption_period:=2.0")
"""Raw images of six cameras at once do not fit into Fast DDS's shared memory. The period, in seconds, leaves half of a
small machine to the cameras."""
VIDEO_CAMERA = "front"
VIDEO_QUESTIONS = ("What do you see?", "Is there a car?", "Is it day or night?")
"""Nobody knows the true answers for a video."""


class _InterruptedError(Exception):
    """Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 if captions and answers arrived, 1 if not, 130 after Ctrl-C."""
    options = _parser().parse_args(argv)
    try:
        from litevlm_ros.lab.demo.run import Run
    except ImportError as error:
        print(f"The demo needs ROS 2 and the built package ({error}): run make setup, then . scripts/env.sh",
              file=sys.stderr)  # fmt: skip
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        return _run(options, Run)
    except LiteVLMError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except _InterruptedError:
        print("demo: interrupted", file=sys.stderr)
        return 130


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise _InterruptedError


def _run(options: argparse.Namespace, make_run: type[Run]) -> int:
    from litevlm_ros.lab.world.scene import CAMERAS

    if options.video is not None and not options.video.is_file():
        raise LiteVLMError(f"--video {options.video}: there is no such file")
    if not options.seconds > 0:
        raise LiteVLMError(f"--seconds is {options.seconds:g}; give how long to run, such as 20")
    options.output.mkdir(parents=True, exist_ok=True)
    cameras = CAMERAS if options.video is None else (VIDEO_CAMERA,)
    source = ["--cameras", ",".join(cameras)]
    if options.video is not None:
        source += ["--video", str(options.video.resolve())]
    names = f"cameras:=[{', '.join(cameras)}]"
    parameters = [part for parameter in (names, *NODE_PARAMETERS) for part in ("-p", parameter)]
    deadline = time.monotonic() + options.seconds
    with ExitStack() as stack:
        children = [
            stack.enter_context(Child(module, arguments, options.output / log, os.environ))
            for module, arguments, log in (
                ("litevlm_ros.tools.demo_cameras", source, "cameras.log"),
                ("litevlm_ros.node.process", ["--ros-args", *parameters], "node.log"),
            )
        ]
        run = make_run(cameras, VIDEO_QUESTIONS if options.video is not None else None)
        stack.callback(run.close)
        while time.monotonic() < deadline:
            run.step(deadline)
            _check(children)
    run.report(options.output / "demo.png")
    if run.complete:
        return 0
    for child in children:
        print(f"--- last lines of {child.log}\n{child.tail()}", file=sys.stderr)
    return 1


def _check(children: Sequence[Child]) -> None:
    for child in children:
        if child.status is not None:
            raise LiteVLMError(f"{child.name} ended early with status {child.status}. Its last lines:\n{child.tail()}")


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
