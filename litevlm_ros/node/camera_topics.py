"""Image subscriptions as the middleware sees them: quality of service (QoS), and reasons why nothing arrives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions

from litevlm_ros.errors import ConfigError
from litevlm_ros.images.message import COMPRESSED_TYPE, RAW_TYPE
from litevlm_ros.node.image_loss import large_images_fix, loss_fix, lost_count
from litevlm_ros.node.image_topics import suggest_topics
from litevlm_ros.node.latched import is_latched
from litevlm_ros.node.qos_overrides import POLICIES

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError


class Silence(str, Enum):
    """A reason why a camera has no usable frame."""

    NO_PUBLISHER = "no publisher"
    WRONG_TYPE = "another type"
    INCOMPATIBLE_QOS = "incompatible QoS"
    NO_MESSAGE = "no message"
    LOST = "lost images"
    CLOCK = "no simulated time"
    MALFORMED = "only malformed images"
    LATE = "late images"


@dataclass(frozen=True)
class Diagnosis:
    """A reason with its explanation, which names the topic and the fix."""

    silence: Silence
    text: str


def image_qos(reliability: str, depth: int) -> QoSProfile:
    """Returns the QoS profile of an image subscription. Best effort and volatile match publishers of every kind."""
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE if reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.VOLATILE,
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
    )


def subscribe(
    node: Node,
    message_type: Any,
    topic: str,
    callback: Callable[[Any], None],
    qos: QoSProfile,
    *,
    on_mismatch: Callable[[], None],
    on_lost: Callable[[int], None],
    callback_group: Any = None,
) -> Any:
    """Subscribes to `topic`, with a QoS that the parameters below `qos_overrides.TOPIC.subscription` may override.

    `qos` is changed to the profile that is requested in the end. `on_mismatch` is called when a publisher with an
    incompatible QoS is found, `on_lost` with the number of messages that the middleware has lost since its last call.
    Raises ConfigError if an override is wrong.
    """

    def make(**events: Any) -> Any:
        return node.create_subscription(
            message_type,
            topic,
            callback,
            qos,
            callback_group=callback_group,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=lambda _: on_mismatch(), use_default_callbacks=False, **events
            ),
            qos_overriding_options=QoSOverridingOptions(POLICIES, callback=_check_overrides),
        )

    try:
        try:
            return make(message_lost=lambda event: on_lost(lost_count(event.total_count_change)))
        except UnsupportedEventTypeError:  # not every middleware reports lost messages
            return make()
    except (RuntimeError, AttributeError, InvalidQosOverridesError, ParameterException) as error:
        raise ConfigError(
            f"a parameter below qos_overrides.{node.resolve_topic_name(topic)}.subscription is wrong ({error}); "
            "allowed: reliability best_effort or reliable, history keep_last or keep_all, depth from 1. Correct it and "
            "start the node again"
        ) from None


def describe_qos(profile: QoSProfile) -> str:
    """Returns the policies that decide whether publisher and subscription match, such as `best effort, volatile`."""
    return f"{_words(profile.reliability)}, {_words(profile.durability)}"


def image_publishers(node: Node, topic: str, compressed: bool) -> list[Any]:
    """Returns rclpy's descriptions of the publishers of a topic that publish the camera's type of messages."""
    wanted = COMPRESSED_TYPE if compressed else RAW_TYPE
    return [each for each in node.get_publishers_info_by_topic(topic) if each.topic_type == wanted]


def publisher_names(publishers: Sequence[Any]) -> list[str]:
    """Returns the full name of each publisher's node; `a node without a name` until discovery has brought it."""
    names = [f"{each.node_namespace.rstrip('/')}/{each.node_name}" for each in publishers]
    return ["a node without a name" if "UNKNOWN" in name else name for name in names]


def why_silent(node: Node, topic: str, compressed: bool, requested: QoSProfile, lost: int = 0) -> Diagnosis:
    """Finds the reason why a subscription to `topic` has brought nothing, or nothing lately.

    `compressed` tells the type that was subscribed to, `requested` is the subscription's QoS, and `lost` the number of
    messages that the middleware reported lost since the last one came. Asks the middleware, which takes about a
    millisecond.
    """
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return Diagnosis(Silence.NO_PUBLISHER, f"nobody publishes {topic}; {suggest_topics(node, topic)}")
    fitting = image_publishers(node, topic, compressed)
    if not fitting:
        wanted, found = COMPRESSED_TYPE if compressed else RAW_TYPE, publishers[0].topic_type
        return Diagnosis(
            Silence.WRONG_TYPE, f"{topic} carries {found}, not {wanted}; change camera_topics or transport"
        )
    if not any(_matches(publisher.qos_profile, requested) for publisher in fitting):
        return Diagnosis(Silence.INCOMPATIBLE_QOS, _incompatible(topic, fitting[0], requested))
    if lost:
        fix = loss_fix(node, topic, compressed, requested)
        return Diagnosis(
            Silence.LOST, f"{lost} images on {topic} were lost on their way, and none came meanwhile; {fix}"
        )
    text = f"{topic} has a publisher but has brought no frame yet"
    if all(_gives_nothing_late(publisher.qos_profile) for publisher in fitting):
        text += "; it is latched but best effort, so DDS keeps nothing of it for late subscribers; make it reliable"
    elif large := large_images_fix(compressed):
        text += f"; if its images are large, {large}"
    return Diagnosis(Silence.NO_MESSAGE, text)


def _check_overrides(profile: QoSProfile) -> SetParametersResult:
    return SetParametersResult(successful=profile.depth >= 1, reason=f"depth is {profile.depth}")


def _matches(offered: QoSProfile, requested: QoSProfile) -> bool:
    compatibility, _ = qos_check_compatible(offered, requested)
    return compatibility != QoSCompatibility.ERROR


def _gives_nothing_late(offered: QoSProfile) -> bool:
    return offered.durability is DurabilityPolicy.TRANSIENT_LOCAL and not is_latched(offered)


def _incompatible(topic: str, publisher: Any, requested: QoSProfile) -> str:
    name = publisher_names([publisher])[0]
    fix = "set image_reliability to best_effort"
    if publisher.qos_profile.reliability == requested.reliability:
        fix = f"change the overrides below qos_overrides.{topic}.subscription"
    return (
        f"{topic} has incompatible QoS: {name} offers {describe_qos(publisher.qos_profile)}, this node requests "
        f"{describe_qos(requested)}; {fix}"
    )


def _words(policy: Enum) -> str:
    return policy.name.lower().replace("_", " ")
