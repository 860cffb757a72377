"""Camera subscriptions: the newest frame of each camera, and nothing older.

A subscription's callback only checks a message's fields and stores the message. Its pixels are decoded when the frame
is used, in the thread that uses it, so the executor never spends time on images that nobody asked about.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from litevlm_ros.errors import ImageFault, MalformedImageError
from litevlm_ros.images.decoding import MAX_PIXELS
from litevlm_ros.images.sample_range import SampleRange
from litevlm_ros.node.camera_topics import (
    Diagnosis,
    Silence,
    image_publishers,
    image_qos,
    publisher_names,
    subscribe,
    why_silent,
)
from litevlm_ros.node.frame_clock import FrameClock, agrees
from litevlm_ros.node.frames import Frame
from litevlm_ros.node.image_loss import loss_fix
from litevlm_ros.node.latched import LatchedImages
from litevlm_ros.node.messages import check_image, take_image
from litevlm_ros.types import AnyImage

_LOSS_REPORT = 0.5
"""Seconds that the middleware may take to report a lost image."""


@dataclass(frozen=True)
class CameraSource:
    """The subscription of one camera, as the parameters describe it."""

    name: str
    topic: str
    compressed: bool
    """True for sensor_msgs/CompressedImage, False for sensor_msgs/Image."""
    reliability: str = "best_effort"
    """One of RELIABILITIES. Best effort receives from publishers of both kinds."""
    depth: int = 1
    """Number of messages that the middleware keeps for the node. One is enough, as only the newest is used."""


@dataclass
class CameraCounters:
    """Counts of a camera's messages since the node was activated."""

    received: int = 0
    replaced: int = 0
    """Messages that a newer one replaced before they were used. This is normal: cameras are faster than models."""
    lost: int = 0
    """Messages that the middleware reported lost (not part of `received`)."""
    dropped: Counter[ImageFault] = field(default_factory=Counter)
    """Malformed messages, by cause. They never replace a good one."""
    unchanged: int = 0
    """Captions that were left out because the view had not changed."""

    def summary(self) -> str:
        """Returns one line for the log."""
        causes = ", ".join(f"{count} {fault.value}" for fault, count in self.dropped.items()) or "none"
        lost = f", {self.lost} lost by the middleware" if self.lost else ""
        captions = f"; {self.unchanged} captions of an unchanged view left out" if self.unchanged else ""
        received = f"{self.received} images received{lost}, {self.replaced} replaced by newer ones"
        return f"{received}, dropped: {causes}{captions}"


class Camera:
    """A subscription and the newest frame that it brought."""

    def __init__(
        self,
        node: Node,
        source: CameraSource,
        on_frame: Callable[[Camera], None],
        *,
        clock: FrameClock | None = None,
        max_pixels: int = MAX_PIXELS,
        callback_group: Any = None,
    ) -> None:
        """Does not subscribe yet; open() does.

        `on_frame` is called in the executor after each good message and must return at once. `clock` is the node's by
        default. Images with more than `max_pixels` pixels count as malformed.
        """
        self.source = source
        self.clock = clock or FrameClock(node)
        self.topic: str = node.resolve_topic_name(source.topic)
        """The topic after namespace and remappings."""
        self.counters = CameraCounters()
        self.qos = image_qos(source.reliability, source.depth)
        """The requested QoS. After open(), it has the overrides that the node's parameters have for this topic."""
        self._node = node
        self._on_frame = on_frame
        self.max_pixels = max_pixels
        self._type = CompressedImage if source.compressed else Image
        self._callback_group = callback_group
        self._subscription: Any = None
        self._latched = LatchedImages(node, self._type, source.topic, self._receive_latched, callback_group)
        self._newest: Frame | None = None
        self._fault = ""
        self._lost_since = 0  # images lost since the newest frame came
        self._told_of_clocks = False
        self._closed = False
        self._samples = SampleRange(f"camera {source.name}")
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The camera's name in parameters, queries and captions."""
        return self.source.name

    def open(self, on_mismatch: Callable[[Camera], None] = lambda camera: None) -> None:
        """Subscribes. `on_mismatch` is called in the executor when a publisher with an incompatible QoS is found.

        Raises ConfigError if an override of the QoS is wrong.
        """
        self._subscription = subscribe(
            self._node,
            self._type,
            self.source.topic,
            self.receive,
            self.qos,
            on_mismatch=lambda: on_mismatch(self),
            on_lost=self._count_lost,
            callback_group=self._callback_group,
        )

    def close(self) -> None:
        """Unsubscribes and forgets the newest frame, for good."""
        self._closed = True
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._latched.close()
        self._newest = None

    def look_at_publishers(self) -> list[str]:
        """Fetches what latched publishers still have, and returns the names of the nodes that publish the topic.

        Has to be called in the executor from time to time.
        """
        if self._closed:
            return []
        publishers = image_publishers(self._node, self.topic, self.source.compressed)
        self._latched.look(publishers)
        return publisher_names(publishers)

    def receive(self, message: Any, *, latched: bool = False) -> None:
        """Stores a message as the newest frame, unless it is malformed. This is the subscription's callback."""
        frame = Frame(message, self.clock, self._decode, latched=latched)
        self.counters.received += 1
        try:
            check_image(message, max_pixels=self.max_pixels)
        except MalformedImageError as error:
            self.count_malformed(error)
            return
        with self._lock:
            if self._newest is not None and not self._newest.used:
                self.counters.replaced += 1
            self._newest = frame
            self._fault = ""
            self._lost_since = 0
        self._compare_clocks(frame)
        self._on_frame(self)

    def newest(self, max_age: float) -> Frame | None:
        """Returns the newest frame, or None if there is none of which it is sure that it is at most `max_age` seconds
        old. Nothing is sure while the node follows a /clock that stands still or never came."""
        frame = self._newest
        return frame if frame is not None and frame.age() <= max_age and self.clock.tells_ages(max_age) else None

    def last(self) -> Frame | None:
        """Returns the newest frame however old it is; None if there was none."""
        return self._newest

    def use(self, max_age: float) -> Frame | None:
        """Returns the same as newest(). The frame counts as used, not as replaced, from now on."""
        with self._lock:
            frame = self.newest(max_age)
            if frame is not None:
                frame.used = True
            return frame

    def why_no_frame(self, max_age: float) -> str:
        """Explains to a client why newest() returns nothing: `CAMERA (REASON)`."""
        if self._closed:
            return f"{self.name} (the node has stopped listening to {self.topic})"
        return f"{self.name} ({self.diagnose(max_age).text})"

    def diagnose(self, max_age: float) -> Diagnosis:
        """Finds the reason why there is no frame that is at most `max_age` seconds old."""
        frame, fault, clock = self._newest, self._fault, self.clock.trouble(max_age)
        if fault and frame is None:
            return Diagnosis(Silence.MALFORMED, f"{self.topic} has brought only malformed images: {fault}")
        diagnosis = why_silent(self._node, self.topic, self.source.compressed, self.qos, self._lost_since)
        if frame is None:
            return Diagnosis(diagnosis.silence, f"{diagnosis.text}; {clock}" if clock else diagnosis.text)
        if clock and frame.age() <= max_age:
            return Diagnosis(
                Silence.CLOCK,
                f"frames arrive on {self.topic}, but nobody can tell their age: {clock}; or set frame_clock to arrival",
            )
        age = f"the last frame on {self.topic} {frame.describe_age(max_age)}"
        if clock:
            return Diagnosis(Silence.CLOCK, f"{age}; {clock}")
        if fault:
            return Diagnosis(Silence.MALFORMED, f"{age}; only malformed images came after it: {fault}")
        if frame.delay() > max_age:
            return Diagnosis(Silence.LATE, age)
        if diagnosis.silence is Silence.NO_MESSAGE:
            return Diagnosis(Silence.NO_MESSAGE, age)
        return Diagnosis(diagnosis.silence, f"{age}; {diagnosis.text}")

    def loss_fix(self) -> str:
        """Returns what to do so that images are lost no longer."""
        return loss_fix(self._node, self.topic, self.source.compressed, self.qos)

    def count_malformed(self, error: MalformedImageError) -> None:
        """Counts a message that cannot be decoded, and logs the first one."""
        with self._lock:
            first = not self.counters.dropped
            self.counters.dropped[error.fault] += 1
            self._fault = str(error)
        if first:
            self._node.get_logger().warning(
                f"Dropped an image of camera {self.name} on {self.topic}: {error}. "
                "Further malformed images of this camera are counted, not logged."
            )

    def _decode(self, message: Any, raw_encodings: Collection[str]) -> AnyImage:
        try:
            return take_image(message, raw_encodings, max_pixels=self.max_pixels, samples=self._samples)
        except MalformedImageError as error:
            self.count_malformed(error)
            raise

    def _compare_clocks(self, frame: Frame) -> None:
        """Logs once that this camera's stamps cannot be used."""
        since = frame.since_stamp
        if self._told_of_clocks or self.clock.counts_from != "auto" or math.isnan(since) or agrees(since):
            return
        if frame.latched or not self.clock.moves():
            return
        self._told_of_clocks = True
        where = "behind" if since > 0 else "ahead of"
        self._node.get_logger().warning(
            f"The stamps of camera {self.name} on {self.topic} are {abs(since):.0f} s {where} "
            "this node's clock, so ages of its frames count from their arrival. A bag is replayed with `ros2 bag play "
            "--clock` and use_sim_time: true; clocks of several computers need NTP or PTP"
        )

    def _receive_latched(self, message: Any) -> None:
        """Stores an image that was published before this node subscribed, unless there is a newer one already."""
        newest = self._newest
        if newest is None or _nanoseconds(message.header.stamp) > _nanoseconds(newest.header.stamp):
            self.receive(message, latched=True)

    def _count_lost(self, count: int) -> None:
        self.counters.lost += count
        newest = self._newest
        # A loss before a frame may be reported only after it.
        if newest is None or time.monotonic() - newest.arrival > _LOSS_REPORT:
            self._lost_since += count


def _nanoseconds(stamp: Time) -> int:
    return int(stamp.sec * 10**9 + stamp.nanosec)
