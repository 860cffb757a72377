"""The second subscription of a camera. test_cameras.py has it with real publishers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from litevlm_ros.node.latched import LATCHED_QOS, LatchedImages

pytestmark = pytest.mark.ros
VOLATILE = QoSProfile(depth=1)
BEST_EFFORT = QoSProfile(
    depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.BEST_EFFORT
)


class Node:
    """A node that counts its subscriptions."""

    def __init__(self) -> None:
        self.made, self.open = 0, 0
        self.deliver: Any = None

    def create_subscription(self, kind: Any, topic: str, callback: Any, qos: QoSProfile, **options: Any) -> object:
        assert qos is LATCHED_QOS
        self.deliver = callback
        self.made, self.open = self.made + 1, self.open + 1
        return object()

    def destroy_subscription(self, subscription: object) -> None:
        self.open -= 1


def publisher(number: int, offered: QoSProfile = LATCHED_QOS) -> Any:
    return SimpleNamespace(endpoint_gid=[number] * 16, qos_profile=offered)


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def received() -> list[str]:
    return []


@pytest.fixture
def latched(node: Any, received: list[str]) -> LatchedImages:
    return LatchedImages(node, object, "/map_image", received.append)


def test_each_latched_publisher_is_asked_once(node: Node, received: list[str], latched: LatchedImages) -> None:
    latched.look([publisher(1)])
    latched.look([publisher(1)])
    assert (node.made, node.open) == (1, 1), "it has published nothing yet"
    node.deliver("image")
    latched.look([publisher(1)])
    assert (node.made, node.open) == (1, 0)
    assert received == ["image"]
    latched.look([publisher(1), publisher(2)])
    assert (node.made, node.open) == (2, 1)


def test_a_driver_that_starts_again_is_asked_again(node: Node, latched: LatchedImages) -> None:
    latched.look([publisher(1)])
    node.deliver("image")
    latched.look([])
    latched.look([publisher(3)])
    assert (node.made, node.open) == (2, 1)


def test_a_publisher_that_went_before_it_gave_anything_is_waited_for_no_longer(
    node: Node, latched: LatchedImages
) -> None:
    latched.look([publisher(1)])
    latched.look([])
    assert (node.made, node.open) == (1, 0)


@pytest.mark.parametrize("offered", [VOLATILE, BEST_EFFORT])
def test_publishers_that_keep_nothing_are_not_asked(node: Node, latched: LatchedImages, offered: QoSProfile) -> None:
    latched.look([publisher(1, offered)])
    assert node.made == 0


def test_closing(node: Node, latched: LatchedImages) -> None:
    latched.close()
    latched.look([publisher(1)])
    latched.close()
    assert (node.made, node.open) == (1, 0)
