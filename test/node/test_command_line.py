from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from litevlm_ros.node.command_line import check_command_line, parameter_files, split
from litevlm_ros.node.parameters import PARAMETERS

ROOT = Path(__file__).resolve().parents[2]

WITHOUT_ROS = """
import sys
for name in ("rclpy", "rcl_interfaces", "builtin_interfaces", "sensor_msgs", "onnxruntime"):
    sys.modules[name] = None
from litevlm_ros.node.process import main
main(["litevlm_node", "--help"])
"""


def test_help_lists_everything_without_ros() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_ROS], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stderr == ""
    for part in ("--ros-args", "--params-file FILE", "ros__parameters:", "Examples:"):
        assert part in run.stdout
    for name, parameter in PARAMETERS.items():
        assert f"\n  {name}: " in run.stdout
        assert ", ".join(parameter.choices) in run.stdout
    assert "\n  view_selection: off   (off, lexical, learned)\n" in run.stdout
    assert "\n  max_new_tokens: 64   (from 1 to 1048576)   live\n" in run.stdout
    assert '\n  camera_topics: [""]\n' in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 120


def test_arguments_that_nobody_reads_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        check_command_line(["--params-file", "robot.yaml"])
    assert ended.value.code == 2
    assert "unknown arguments: --params-file robot.yaml. Arguments for ROS follow --ros-args" in capsys.readouterr().err
    check_command_line([])
    check_command_line(["--ros-args", "-p", "a:=b", "--"])


def test_arguments_for_ros_end_with_two_dashes() -> None:
    arguments = ["--own", "--ros-args", "-p", "a:=b", "--", "last", "--ros-args", "-r", "a:=b"]
    assert split(arguments) == (["--own", "last"], ["-p", "a:=b", "-r", "a:=b"])


def test_files_of_parameters_are_found() -> None:
    arguments = [
        "node",
        "--params-file",
        "x",
        "--ros-args",
        "--params-file",
        "a.yaml",
        "-p",
        "b:=c",
        "--params-file",
        "d.yaml",
    ]
    assert parameter_files(arguments) == [Path("a.yaml"), Path("d.yaml")]
    assert parameter_files(["node", "--ros-args", "--params-file"]) == []
