"""Images that a latched publisher (durability transient local) sent before the node began to listen.

A camera's subscription is volatile, as it then matches publishers of every kind, but gets nothing that was published
before it. So a second subscription fetches what a latched publisher still has, once for each publisher. It has to be
reliable: DDS gives a best-effort subscription nothing of what was sent before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

LATCHED_QOS = QoSProfile(
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
)


class LatchedImages:
    """The second subscription of one camera. It exists while a latched publisher has not given its image yet."""

    def __init__(
        self,
        node: Node,
        message_type: Any,
        topic: str,
        on_message: Callable[[Any], None],
        callback_group: Any = None,
    ) -> None:
        """Subscribes to nothing yet; look() does. `on_message` gets each image, which may be old."""
        self._node = node
        self._arguments = (message_type, topic, self._receive, LATCHED_QOS)
        self._callback_group = callback_group
        self._on_message = on_message
        self._subscription: Any = None
        self._asked: frozenset[bytes] = frozenset()
        self._known: frozenset[bytes] = frozenset()
        self._brought = False

    def look(self, publishers: Sequence[Any]) -> None:
        """Subscribes if there is a new latched publisher, and unsubscribes when it has given its image or is gone.

        `publishers` are the topic's, as rclpy describes them. Has to be called in the executor from time to time.
        """
        latched = frozenset(bytes(each.endpoint_gid) for each in publishers if is_latched(each.qos_profile))
        if self._brought:
            self._known |= self._asked
        self._known &= latched
        wanted = latched - self._known
        if self._subscription is not None and (self._brought or not wanted):
            self.close()
        if wanted and self._subscription is None:
            self._asked, self._brought = wanted, False
            self._subscription = self._node.create_subscription(
                *self._arguments,
                callback_group=self._callback_group,
                # Other publishers of the topic need not match. rclpy would log each.
                event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            )

    def close(self) -> None:
        """Unsubscribes."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._node.destroy_subscription(subscription)

    def _receive(self, message: Any) -> None:
        self._brought = True
        self._on_message(message)


def is_latched(offered: QoSProfile) -> bool:
    """Returns True if a publisher with this QoS gives late subscribers what it sent before."""
    return offered.durability is DurabilityPolicy.TRANSIENT_LOCAL and offered.reliability is ReliabilityPolicy.RELIABLE
