"""Raw images of six cameras at once, through the shared memory that the launch files set up."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from package_files import ROOT

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_domains import next_domain
from ros_process import Client, process
from sensor_msgs.msg import Image

from litevlm_ros.config import DEMO_CAMERAS

pytestmark = pytest.mark.ros
ROUNDS = 6


def test_no_image_is_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        monkeypatch.setenv(variable, str(ROOT / "config" / "fastdds.xml"))
    domain = next_domain()
    client = Client(domain)
    qos = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)
    arrived = {name: client.listen(Image, f"/{name}/image_raw", qos) for name in DEMO_CAMERAS}

    def cameras_by_stamp() -> Counter[tuple[int, int]]:
        stamps = [
            (image.header.stamp.sec, image.header.stamp.nanosec) for images in arrived.values() for image in images
        ]
        return Counter(stamps)

    def complete() -> int:
        return list(cameras_by_stamp().values()).count(len(DEMO_CAMERAS))

    arguments = ["-m", "litevlm_ros.tools.demo_cameras", "--rate=3", "--seed=1"]
    with process(arguments, tmp_path / "log", domain):
        client.wait_for(lambda: complete() >= ROUNDS, 60.0)
    client.close()
    counts = [count for _, count in sorted(cameras_by_stamp().items())]
    # Before discovery is over, cameras are missing; the last round may be cut off.
    first = counts.index(len(DEMO_CAMERAS))
    assert set(counts[first:-1]) == {len(DEMO_CAMERAS)}
