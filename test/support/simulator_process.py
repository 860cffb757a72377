"""A simulator as a process: `python simulator_process.py /front/image_raw` publishes /clock and the images of a camera.

The simulated time begins at 100 s and runs as fast as real time, while the process runs: stopped and continued, it
goes on where it was. With `--clock-seconds`, it stands still after that time, and images come nevertheless.
"""

from __future__ import annotations

import argparse
import math
import time

import rclpy
from builtin_interfaces.msg import Time
from ros_process import image
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

STEP = 0.02


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("topic")
    parser.add_argument("--clock-seconds", type=float, default=math.inf)
    options = parser.parse_args()
    rclpy.init()
    node = rclpy.create_node("simulator")
    clock, camera = node.create_publisher(Clock, "/clock", 5), node.create_publisher(Image, options.topic, 5)
    passed = 0.0
    while True:
        seconds, nanoseconds = divmod(int((100.0 + passed) * 1e9), 10**9)
        if passed <= options.clock_seconds:
            clock.publish(Clock(clock=Time(sec=seconds, nanosec=nanoseconds)))
        camera.publish(image(90, (seconds, nanoseconds)))
        passed += STEP
        time.sleep(STEP)


if __name__ == "__main__":
    main()
