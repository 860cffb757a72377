"""Publish camera images: rendered street views, a video file, photos, or a camera that is plugged in.

Each camera NAME has NAME/image_raw (sensor_msgs/Image) and NAME/image_raw/compressed (sensor_msgs/CompressedImage), in
the namespace of this node. The ground truth of rendered views goes to demo_cameras/ground_truth there, as JSON in a
std_msgs/String, once per scene.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.errors import ConfigError
from litevlm_ros.node.command_line import split
from litevlm_ros.node.ros_environment import check_environment
from litevlm_ros.processes import StopRequest, stop_on_signals
from litevlm_ros.tools.command import new_parser, run_command

if TYPE_CHECKING:
    from litevlm_ros.lab.demo.sources import Source

_DEFAULT_CAMERA = "front"
_MOST_PIXELS = 64_000_000


def main(argv: Sequence[str] | None = None) -> int:
    """Publishes until SIGINT, SIGTERM or SIGHUP. Returns 0, or 2 for settings that cannot work."""
    with stop_on_signals() as stop:
        own, for_ros = split(sys.argv[1:] if argv is None else argv)
        options = _parser().parse_args(own)
        return run_command(lambda: _run(options, for_ros, stop), prefix="demo_cameras: ", failed=2)


def _run(options: argparse.Namespace, for_ros: Sequence[str], stop: StopRequest) -> None:
    _check(options)
    check_environment(for_ros)
    source = _source(options)
    try:
        # Imported late, so that --help and the checks of options work without ROS.
        from litevlm_ros.lab.demo.publisher import publish

        publish(source, options.rate, for_ros, stop)
    finally:
        source.close()


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("demo_cameras", __doc__)
    pictures = parser.add_mutually_exclusive_group()
    pictures.add_argument("--video", type=Path, metavar="FILE", help="play this video in a loop")
    pictures.add_argument("--photos", type=Path, metavar="PATH", help="show this photo, or those of a folder in turn")
    pictures.add_argument("--device", metavar="DEVICE", help="show what this camera sees, such as /dev/video0")
    parser.add_argument(
        "--cameras", default="", metavar="A,B", help="camera names (default: all six of the street world; else front)"
    )
    parser.add_argument("--rate", type=float, default=5.0, metavar="HZ", help="images a second of each camera (5)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="number of the first rendered scene (0)")
    parser.add_argument(
        "--scene-seconds", type=float, default=10.0, metavar="S", help="seconds of each scene or photo (10)"
    )
    parser.add_argument("--width", type=int, default=640, metavar="W", help="width of rendered images in pixels (640)")
    parser.add_argument("--height", type=int, default=480, metavar="H", help="their height in pixels (480)")
    return parser


def _check(options: argparse.Namespace) -> None:
    for flag, value in (("--rate", options.rate), ("--scene-seconds", options.scene_seconds)):
        if not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"{flag} must be above 0, not {value:g}")
    if min(options.width, options.height) < 16 or options.width * options.height > _MOST_PIXELS:
        raise ConfigError(
            f"--width and --height must be at least 16, and at most {_MOST_PIXELS} pixels together, "
            f"not {options.width}x{options.height}"
        )


def _source(options: argparse.Namespace) -> Source:
    # Imported late, so that --help works without OpenCV.
    from litevlm_ros.lab.demo.pictures import Pictures

    pictures = Pictures(options.video, options.device, options.photos)
    cameras = [name.strip() for name in options.cameras.split(",") if name.strip()]
    cameras = cameras or (list(DEMO_CAMERAS) if pictures.rendered else [_DEFAULT_CAMERA])
    if len(set(cameras)) != len(cameras):
        raise ConfigError(f"--cameras has a name twice: {', '.join(cameras)}")
    size = (options.width, options.height)
    return pictures.open(cameras, seed=options.seed, scene_seconds=options.scene_seconds, size=size)


if __name__ == "__main__":
    sys.exit(main())
