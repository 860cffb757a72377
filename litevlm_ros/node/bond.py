"""The bond with a lifecycle manager: heartbeats by which it notices that the node hangs or has died.

Managers such as nav2's expect one of every node that they activate, unless they are told not to. The package bondpy
(https://github.com/ros/bond_core) implements it. It is needed only where the parameter `bond_heartbeat_period` asks
for a bond.
"""

from __future__ import annotations

import importlib
from typing import Any

from rclpy.node import Node

from litevlm_ros.errors import ConfigError

TOPIC = "bond"
"""The topic of all bonds, in the node's namespace, as nav2's own nodes have it."""

HEARTBEAT_SECONDS = 4.0
"""Seconds without a heartbeat after which either side takes the other for dead, as with nav2's own nodes."""


def load_bondpy() -> Any:
    """Returns the module bondpy.bondpy. Raises ConfigError if it is not installed."""
    try:
        return importlib.import_module("bondpy.bondpy")
    except ImportError as error:
        raise ConfigError(
            f"parameter bond_heartbeat_period asks for a bond, but bondpy cannot be imported ({error}). Install it: "
            "sudo apt install ros-$ROS_DISTRO-bondpy. Or set bond_heartbeat_period to 0, and bond_timeout of the "
            "lifecycle manager too"
        ) from None


class Bond:
    """One bond, from an activation of the node to its end."""

    def __init__(self, node: Node, period: float) -> None:
        """Begins the heartbeats, one each `period` seconds. Raises ConfigError if bondpy is not installed."""
        self._node = node
        self._ended = False
        self._bond = load_bondpy().Bond(
            TOPIC, node.get_name(), node, on_broken=self._on_broken, on_formed=self._on_formed
        )
        self._bond.heartbeat_period = period
        self._bond.heartbeat_timeout = HEARTBEAT_SECONDS
        self._bond.start()

    def close(self) -> None:
        """Breaks the bond, which tells the manager at once that the node has ended its work."""
        self._ended = True
        try:
            self._bond.break_bond()
            self._bond.shutdown()
            # bondpy destroys both, but leaves them in the node's lists.
            self._node.destroy_subscription(self._bond.sub)
            self._node.destroy_publisher(self._bond.pub)
        except Exception as error:  # bondpy's own; the manager then misses the heartbeats
            self._node.get_logger().warning(f"The bond with the lifecycle manager did not end in order: {error!r}")

    def _on_formed(self) -> None:
        self._node.get_logger().info("The bond with the lifecycle manager is formed")

    def _on_broken(self) -> None:
        if not self._ended:
            self._node.get_logger().warning(
                f"The bond with the lifecycle manager is broken: the manager has ended, or nothing came from it on "
                f"{self._node.resolve_topic_name(TOPIC)} in time. The node goes on; if no manager wants a bond, set "
                "bond_heartbeat_period to 0"
            )
