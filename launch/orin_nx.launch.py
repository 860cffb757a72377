"""Starts the node on a Jetson Orin NX (16 GB), with config/orin_nx.yaml:

ros2 launch litevlm_ros orin_nx.launch.py cameras:=front camera_topics:=/camera/image_raw
"""

from __future__ import annotations

from launch import LaunchDescription
from litevlm_ros.launching.board import board_description
from litevlm_ros.launching.preflight import Board


def generate_launch_description() -> LaunchDescription:
    return board_description(Board("Jetson Orin NX", "orin_nx.yaml", "--fp8 --vision-precision fp16"))
