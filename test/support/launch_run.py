"""Runs a launch file as `ros2 launch FILE name:=value ...` does: `python launch_run.py FILE name:=value ...`."""

from __future__ import annotations

import sys

from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource

from launch import LaunchDescription, LaunchService


def main() -> int:
    file, *arguments = sys.argv[1:]
    included = IncludeLaunchDescription(
        AnyLaunchDescriptionSource(file),
        launch_arguments=[(name, value) for name, _, value in (argument.partition(":=") for argument in arguments)],
    )
    service = LaunchService()
    service.include_launch_description(LaunchDescription([included]))
    return int(service.run())


if __name__ == "__main__":
    sys.exit(main())
