from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from rclpy.qos import QoSProfile, ReliabilityPolicy

from litevlm_ros.node import image_loss
from litevlm_ros.node.camera_topics import image_qos
from litevlm_ros.node.image_loss import Losses, loss_fix, lost_count

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(
    ("reported", "count"),
    [
        (0, 0),
        (3, 3),
        (2**31 - 1, 2**31 - 1),
        ((0x7FFC << 32) + 62, 62),  # rubbish in the upper half
        ((0xFFFFFFFF << 32) + 1, 1),
        (2**64 - 1, 0),  # -1, of which nothing can be made
        (2**65 + 5, 5),
        (-1, 0),
    ],
)
def test_only_the_lower_half_of_a_count_is_the_middlewares(reported: int, count: int) -> None:
    assert lost_count(reported) == count


def test_a_few_lost_images_are_normal() -> None:
    losses = Losses()
    assert losses.warning() == ""
    losses.look(9, 1)
    assert losses.warning() == ""
    losses.look(10, 3)
    assert losses.warning() == "3 of 13 images were lost on their way"


def test_all_images_lost() -> None:
    losses = Losses()
    losses.look(0, 1)
    assert losses.warning() == "1 of 1 images were lost on their way"


class Node:
    """The graph of a node, with one publisher."""

    def __init__(self, offered: ReliabilityPolicy, *topics: str) -> None:
        self.offered, self.topics = offered, topics

    def get_publishers_info_by_topic(self, topic: str) -> list[Any]:
        return [SimpleNamespace(qos_profile=QoSProfile(depth=1, reliability=self.offered))]

    def get_fully_qualified_name(self) -> str:
        return "/litevlm"

    def get_topic_names_and_types(self) -> list[tuple[str, list[str]]]:
        return [(topic, ["sensor_msgs/msg/CompressedImage"]) for topic in self.topics]

    def count_publishers(self, topic: str) -> int:
        return 1


@pytest.fixture(autouse=True)
def middleware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_loss, "get_rmw_implementation_identifier", lambda: "rmw_fastrtps_cpp")
    monkeypatch.setenv("ROS_DISTRO", "jazzy")


def test_the_fix_for_raw_images() -> None:
    best_effort = image_qos("best_effort", 1)
    fix = loss_fix(Node(ReliabilityPolicy.BEST_EFFORT), "/front/image_raw", False, best_effort)
    assert fix.startswith("start the driver with FASTRTPS_DEFAULT_PROFILES_FILE=/")
    assert "config/fastdds.xml: Fast DDS has shared memory for 512 KB" in fix
    assert "use compressed images (transport: compressed)" in fix
    assert "image_reliability" not in fix
    node = Node(ReliabilityPolicy.RELIABLE, "/front/image_raw/compressed")
    fix = loss_fix(node, "/front/image_raw", False, best_effort)
    assert "; or set image_reliability to reliable, as its publisher is; or set camera_topics to" in fix
    assert fix.endswith("/front/image_raw/compressed")
    assert "image_reliability" not in loss_fix(node, "/front/image_raw", False, image_qos("reliable", 1))


def test_the_fix_names_the_variable_of_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DISTRO", "kilted")
    fix = loss_fix(Node(ReliabilityPolicy.BEST_EFFORT), "/x", False, image_qos("best_effort", 1))
    assert fix.startswith("start the driver with FASTDDS_DEFAULT_PROFILES_FILE=")


def test_the_fix_for_compressed_images_and_for_other_middlewares(monkeypatch: pytest.MonkeyPatch) -> None:
    fix = loss_fix(Node(ReliabilityPolicy.BEST_EFFORT), "/x/compressed", True, image_qos("best_effort", 1))
    assert fix == "publish fewer or smaller images, or raise the kernel's net.core.rmem_max"
    monkeypatch.setattr(image_loss, "get_rmw_implementation_identifier", lambda: "rmw_cyclonedds_cpp")
    assert "PROFILES_FILE" not in loss_fix(Node(ReliabilityPolicy.RELIABLE), "/x", False, image_qos("reliable", 1))
