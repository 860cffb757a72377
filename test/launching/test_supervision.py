"""Processes that really run and end, in a launch of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("launch_ros", reason="needs ROS's launch, which comes from apt")

from launch.actions import ExecuteProcess

from launch import LaunchDescription, LaunchService
from litevlm_ros.errors import ConfigError
from litevlm_ros.launching.supervision import Supervision

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("handlers")]


@pytest.fixture(autouse=True)
def _logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))


def run(*processes: ExecuteProcess) -> None:
    """Runs processes until all have ended, and none waits to be started again."""
    service = LaunchService(noninteractive=True)
    service.include_launch_description(LaunchDescription(list(processes)))
    service.run()


def starts(directory: Path, supervision: Supervision, *ends: str) -> int:
    """Runs a process whose first start ends with `ends[0]`, its second with `ends[1]`. Returns the number of starts."""
    lines = [
        "import os, signal, sys",
        f"count = len(os.listdir({str(directory)!r})) + 1",
        f"open(os.path.join({str(directory)!r}, str(count)), 'w').close()",
        *(f"if count == {number}: {end}" for number, end in enumerate(ends, 1)),
    ]
    run(ExecuteProcess(cmd=[sys.executable, "-c", "\n".join(lines)], **supervision.options()))
    return len(list(directory.iterdir()))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "starts").mkdir()
    return tmp_path / "starts"


def test_who_dies_is_started_again_until_it_ends_well(directory: Path) -> None:
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    assert starts(directory, Supervision(True, 0.5, False), kill, "sys.exit(1)", "sys.exit(0)", "sys.exit(1)") == 3


@pytest.mark.parametrize("end", ["sys.exit(0)", "sys.exit(2)", "os.kill(os.getpid(), signal.SIGTERM)"])
def test_who_ends_on_purpose_or_could_only_fail_again_is_not(directory: Path, end: str) -> None:
    assert starts(directory, Supervision(True, 0.5, False), end, "sys.exit(0)") == 1


@pytest.mark.parametrize("supervision", [Supervision(False, 0.5, False), Supervision(True, 0.5, True)])
def test_without_respawn_or_required_nobody_is(directory: Path, supervision: Supervision) -> None:
    assert starts(directory, supervision, "sys.exit(1)", "sys.exit(0)") == 1


@pytest.mark.parametrize("required", [False, True])
def test_only_a_required_process_takes_others_along(tmp_path: Path, required: bool) -> None:
    done = tmp_path / "done"
    code = f"import time; time.sleep(2); open({str(done)!r}, 'w').close()"
    other = ExecuteProcess(cmd=[sys.executable, "-c", code])
    supervision = Supervision(False, 0.5, required)
    run(other, ExecuteProcess(cmd=[sys.executable, "-c", "raise SystemExit(1)"], **supervision.options()))
    assert done.exists() is not required


@pytest.mark.parametrize("delay", ["0", "0.4", "-1", "x", "", "nan", "inf", "1e9"])
def test_delays_that_would_fill_the_log_or_are_none(delay: str) -> None:
    with pytest.raises(
        ConfigError, match=f"respawn_delay is '{delay}'; give seconds from 0.5 to 86400, or set respawn"
    ):
        Supervision.of_arguments({"respawn": "true", "respawn_delay": delay, "required": "false"})


def test_arguments() -> None:
    given = {"respawn": "True", "respawn_delay": "2", "required": "false"}
    assert Supervision.of_arguments(given) == Supervision(True, 2.0, False)
