"""Starts the node on a Jetson AGX Orin (32 GB), with config/orin_agx.yaml:

ros2 launch litevlm_ros orin_agx.launch.py cameras:=front camera_topics:=/camera/image_raw
"""

from __future__ import annotations

from launch import LaunchDescription
from litevlm_ros.launching.board import board_description
from litevlm_ros.launching.preflight import Board


def generate_launch_description() -> LaunchDescription:
    return board_description(Board("Jetson AGX Orin", "orin_agx.yaml", "--fp8 --vision-precision fp16"))
