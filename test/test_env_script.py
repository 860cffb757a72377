"""scripts/env.sh, which leaves the user's choices alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHOICES = (
    "RMW_IMPLEMENTATION", "ROS_LOCALHOST_ONLY", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_STATIC_PEERS", "ROS_DOMAIN_ID",
    "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE", "ROS_DISCOVERY_SERVER",
)  # fmt: skip

pytestmark = pytest.mark.skipif(not (ROOT / ".venv").exists(), reason="needs make setup")


def sourced(shell: str = "bash", times: int = 1, **variables: str) -> dict[str, str]:
    """The variables that the script leaves behind for `variables` from before."""
    environment = {"HOME": os.environ.get("HOME", "/"), "PATH": "/usr/local/bin:/usr/bin:/bin", **variables}
    code = f". {ROOT}/scripts/env.sh; " * times + "env -0"
    run = subprocess.run([shell, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert run.stderr == ""
    return dict(line.split("=", 1) for line in run.stdout.split("\0") if line)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_discovery_is_limited_to_this_machine_if_nobody_chose(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    left = sourced(shell)
    assert left["VIRTUAL_ENV"] == str(ROOT / ".venv")
    assert left.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "LOCALHOST" or left.get("ROS_LOCALHOST_ONLY") == "1"
    assert not set(left) & (set(CHOICES) - {"ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY"})
    assert not [name for name in left if "litevlm" in name]


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_stays(name: str) -> None:
    left = sourced(**{name: "mine"})
    assert left[name] == "mine"
    if name in ("ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER"):
        assert "ROS_AUTOMATIC_DISCOVERY_RANGE" not in left


def test_sourcing_twice_changes_nothing() -> None:
    once, twice = sourced(), sourced(times=2)
    for variables in (once, twice):
        for name in ("PATH", "PS1", "_"):  # activate of a venv prepends to both
            del variables[name]
    assert once == twice
