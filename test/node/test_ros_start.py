"""A start of the node or of a tool that ROS refuses: one sentence and a status, and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from ros_process import ROOT

pytestmark = pytest.mark.ros

NODE = "litevlm_ros.node.process"


def refused(module: str, *arguments: str, **variables: str) -> tuple[int, str]:
    """The exit status of a module and what it says."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, **variables}
    command = [sys.executable, "-m", module, *arguments]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in run.stderr
    return run.returncode, run.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--params-file", "/nope.yaml"], "the file of parameters /nope.yaml cannot be opened; correct the path"),
        (["--params-file", "{folder}/bad.yaml"], "bad.yaml is not one of ROS: Sequences can only be values"),
        (
            ["--params-file", "{folder}/flat.yaml"],
            "flat.yaml is not one of ROS: Cannot have a value before ros__parameters",
        ),
        (["-r", "foo"], "-r foo renames nothing; write FROM:=TO"),
        (["-r", "__ns:=bad"], "-r __ns:=bad renames nothing; write FROM:=TO"),
        (["-p", "foo"], "-p foo sets no parameter; write -p NAME:=VALUE, and for an empty text -p NAME:=''"),
        (["-p", "cameras:=[a, 1]"], "-p cameras:=[a, 1] sets no parameter: Sequence should be of same type"),
        (["--log-level", "loud"], "--log-level loud is no log level; write debug, info, warn, error or fatal"),
        (["--bogus", "1"], "unknown arguments behind --ros-args: --bogus 1; "),
        (
            ["-p", "use_sim_time:=3"],
            "a parameter of ROS itself is wrong: Trying to set parameter 'use_sim_time' to '3'",
        ),
        (["--enclave", "bad"], "ROS does not start: Enclave name is not valid"),
    ],
)
def test_arguments_that_ros_refuses(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "flat.yaml").write_text("litevlm:\n  max_tiles: 1\n")
    status, said = refused(NODE, "--ros-args", *(argument.format(folder=tmp_path) for argument in arguments))
    assert status == 2
    assert "\nlitevlm_node: " in f"\n{said}"
    assert sentence in said


def test_an_argument_that_is_not_for_ros() -> None:
    status, said = refused(NODE, "--params-file", "robot.yaml")
    assert status == 2
    assert "Arguments for ROS follow --ros-args" in said


TOOLS = {
    "node": (NODE, [], 2),
    "demo_cameras": ("litevlm_ros.tools.demo_cameras", [], 2),
    "demo": ("litevlm_ros.tools.demo", [], 1),
    "benchmark": ("litevlm_ros.tools.benchmark", ["--ros"], 1),
}


@pytest.mark.parametrize(("module", "arguments", "status"), TOOLS.values(), ids=TOOLS)
def test_an_environment_that_ros_refuses(module: str, arguments: list[str], status: int) -> None:
    wrong = {"ROS_DOMAIN_ID": "abc", "RMW_IMPLEMENTATION": "rmw_nope", "ROS_LOG_DIR": "/dev/null"}
    result, said = refused(module, *arguments, **wrong)
    assert result == status
    for sentence in ("ROS_DOMAIN_ID is 'abc'", "RMW_IMPLEMENTATION is 'rmw_nope'", "ROS_LOG_DIR is '/dev/null'"):
        assert sentence in said


def test_an_enclave_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "enclaves").mkdir()
    secure = {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce", "ROS_SECURITY_KEYSTORE": str(tmp_path)}
    status, said = refused(NODE, "--ros-args", "--enclave", "/nobody", **secure)
    assert status == 2
    assert "enclaves/nobody' does not exist. Make the enclave with ros2 security create_enclave" in said


def test_demo_cameras_refuses_arguments_that_nobody_reads() -> None:
    status, said = refused("litevlm_ros.tools.demo_cameras", "--fast")
    assert status == 2
    assert "unrecognized arguments: --fast" in said
