"""The surroundings that all tests share: a ROS domain, one thread for each numerical library, a GPU or a skip."""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator

import pytest
from ros_domains import next_domain
from shared_files import VARIABLE

# Before anything imports rclpy, and for the processes that tests start. Each worker of pytest-xdist has its own domain.
# Tests stay on this machine and use one middleware, whatever the robot's settings are.
os.environ["ROS_DOMAIN_ID"] = str(next_domain())
os.environ["RMW_IMPLEMENTATION"] = "rmw_fastrtps_cpp"
for variable in ("ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER", "ROS_LOCALHOST_ONLY"):
    os.environ.pop(variable, None)
if os.environ.get("ROS_DISTRO") == "humble":
    os.environ["ROS_LOCALHOST_ONLY"] = "1"
else:
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

# The workers take the cores; threads of their own would only wait for one another.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# A shell's background job (`make test &`, many CI runners) ignores Ctrl-C, and so would every process that tests start
# and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


if VARIABLE not in os.environ:
    os.environ[VARIABLE] = tempfile.mkdtemp(prefix="litevlm_ros_test_")
    atexit.register(shutil.rmtree, os.environ[VARIABLE], ignore_errors=True)


@functools.cache
def _has_gpu() -> bool:
    try:
        return bool(ctypes.CDLL("libcuda.so.1").cuInit(0) == 0)
    except OSError:
        return False


@pytest.fixture
def handlers() -> Iterator[None]:
    """Has SIGHUP end processes, also in a test run under nohup, and restores the handlers of end signals afterwards.

    The children of later tests would inherit it if one was ignored.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not _has_gpu():
        pytest.skip("no NVIDIA GPU, or its driver does not start")
