"""What all tests share: a ROS domain of their own, and a GPU or a skip."""

from __future__ import annotations

import ctypes
import functools
import os
import socket

import pytest


def _free_domain() -> int:
    """A ROS domain, 1 to 101, in which no participant runs on this machine.

    DDS puts the first participant of domain d on the UDP ports 7410 + 250 d and 7411 + 250 d. Starting from the process
    id keeps two runs that begin together apart.
    """
    for attempt in range(101):
        domain = 1 + (os.getpid() + attempt) % 101
        try:
            for port in (7410 + 250 * domain, 7411 + 250 * domain):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    probe.bind(("", port))
        except OSError:
            continue
        return domain
    raise RuntimeError("all ROS domains from 1 to 101 are in use on this machine; stop other ROS processes")


# Before anything imports rclpy, and for the processes that tests start.
os.environ["ROS_DOMAIN_ID"] = str(_free_domain())
if os.environ.get("ROS_DISTRO") == "humble":
    os.environ["ROS_LOCALHOST_ONLY"] = "1"
else:
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


@pytest.fixture(scope="session")
def ros_domain_id() -> int:
    """The domain of this test run. It is in the environment already: tests need it only to leave or to name it."""
    return int(os.environ["ROS_DOMAIN_ID"])


@functools.cache
def _has_gpu() -> bool:
    try:
        return bool(ctypes.CDLL("libcuda.so.1").cuInit(0) == 0)
    except OSError:
        return False


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not _has_gpu():
        pytest.skip("no NVIDIA GPU, or its driver does not start")
