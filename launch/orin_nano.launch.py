"""Starts the node on a Jetson Orin Nano (8 GB), with config/orin_nano.yaml:

ros2 launch litevlm_ros orin_nano.launch.py cameras:=front camera_topics:=/camera/image_raw
"""

from __future__ import annotations

from launch import LaunchDescription
from litevlm_ros.launching.board import board_description
from litevlm_ros.launching.preflight import Board


def generate_launch_description() -> LaunchDescription:
    return board_description(Board("Jetson Orin Nano", "orin_nano.yaml", "--fp8 --max-tiles 6 --max-context 2048"))
