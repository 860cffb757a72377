"""Cameras as a process: `python camera_process.py raw:/front/image_raw compressed:/back/image_raw/compressed`.

Each publishes grey 8x6 images, in turn 10, 20, 30, ... with the stamp of the publication, at `--rate`. With
`--broken`, every other raw image is malformed, in a different way each time. With `--once`, each publishes one image,
latched, and none after it. With `--large`, raw images have 1280x720 pixels in colour.
"""

from __future__ import annotations

import argparse
import array
import itertools
import time
from typing import Any

import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_process import compressed, image
from sensor_msgs.msg import CompressedImage, Image

BROKEN: tuple[dict[str, Any], ...] = (
    {"step": 3},
    {"encoding": "nonsense"},
    {"width": 0, "height": 0},
    {"data": array.array("B")},
    {"height": 4_000_000_000, "width": 4_000_000_000},
    {"encoding": "nv12", "width": 7},
)
LARGE: dict[str, Any] = {
    "encoding": "rgb8", "width": 1280, "height": 720, "step": 3840, "data": array.array("B", bytes(3840 * 720)),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cameras", nargs="+")
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--broken", action="store_true")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    rclpy.init()
    node = rclpy.create_node("cameras")
    durability = DurabilityPolicy.TRANSIENT_LOCAL if options.once else DurabilityPolicy.VOLATILE
    qos = QoSProfile(depth=5, durability=durability)
    publishers = []
    for camera in options.cameras:
        kind, _, topic = camera.partition(":")
        publishers.append((kind, node.create_publisher(Image if kind == "raw" else CompressedImage, topic, qos)))
    faults = itertools.cycle(BROKEN)
    for index in itertools.count():
        stamp = divmod(time.time_ns(), 10**9)
        for kind, publisher in publishers:
            value = 10 + 10 * (index % 20)
            if kind == "compressed":
                publisher.publish(compressed(value, stamp))
            elif options.broken and index % 2:
                publisher.publish(image(value, stamp, **next(faults)))
            elif options.large:
                publisher.publish(image(value, stamp, **LARGE))
            else:
                publisher.publish(image(value, stamp))
        while options.once:
            time.sleep(1)
        time.sleep(1 / options.rate)


if __name__ == "__main__":
    main()
