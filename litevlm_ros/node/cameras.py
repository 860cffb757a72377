"""Camera subscriptions: the newest frame of each camera, and nothing older.

A subscription's callback looks at a message's header fields and stores it. Its pixels are decoded by whoever uses
them, so that the executor is never busy with pictures nobody asked about.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from litevlm_ros.images.decoding import MAX_PIXELS
from litevlm_ros.images.faults import ImageFault, MalformedImageError
from litevlm_ros.node.camera_topics import Diagnosis, Silence, image_qos, subscribe, why_silent
from litevlm_ros.node.frame_clock import FrameClock, agrees
from litevlm_ros.node.messages import check_image, decode_image
from litevlm_ros.types import RgbImage

_NUMBERS = itertools.count()


@dataclass(frozen=True)
class CameraSource:
    """Where a camera's images come from."""

    name: str
    topic: str
    compressed: bool
    """CompressedImage, as opposed to Image."""
    reliability: str = "best_effort"
    """One of RELIABILITIES. Best effort takes what comes, from publishers of either kind."""
    depth: int = 1
    """Messages that the middleware keeps for the node. Only the newest counts, so that one is enough."""


@dataclass
class CameraCounters:
    """What became of a camera's messages since the node was activated."""

    received: int = 0
    replaced: int = 0
    """Overtaken by a newer message before anybody used them. Normal: cameras are faster than models."""
    lost: int = 0
    """By the middleware, as far as it says so, beside those received."""
    dropped: Counter[ImageFault] = field(default_factory=Counter)
    """Malformed ones, by cause. They never replace a good one."""
    unchanged: int = 0
    """Captions that were left out because the view had not changed."""

    def summary(self) -> str:
        """One line for the log."""
        causes = ", ".join(f"{count} {fault.value}" for fault, count in self.dropped.items()) or "none"
        lost = f", {self.lost} lost by the middleware" if self.lost else ""
        captions = f"; {self.unchanged} captions of an unchanged view left out" if self.unchanged else ""
        received = f"{self.received} images received{lost}, {self.replaced} replaced by newer ones"
        return f"{received}, dropped: {causes}{captions}"


class Frame:
    """One received message, decoded at most once."""

    def __init__(self, camera: Camera, message: Any) -> None:
        self.camera = camera
        self.number = next(_NUMBERS)
        """Of this frame among all of this process."""
        self.since_stamp = camera.clock.since(message.header.stamp)
        """Seconds from its stamp to its arrival on the node's clock; NaN without a stamp."""
        self.used = False
        self._arrived = camera.clock.now()
        self._message = message
        self._decoded: RgbImage | MalformedImageError | None = None
        self._lock = threading.Lock()

    @property
    def header(self) -> Header:
        """The message's header: when and where the image was taken."""
        return self._message.header

    @property
    def arrival(self) -> float:
        """Seconds on the monotonic clock."""
        return self._arrived.steady

    def age(self) -> float:
        """Seconds since it was taken, or since it arrived where its stamp says nothing; see FrameClock."""
        return self.delay() + self._arrived.seconds_until(self.camera.clock.now())

    def delay(self) -> float:
        """The part of its age that it had when it arrived."""
        return self.camera.clock.delay(self.since_stamp)

    def kind(self) -> str:
        """Size and encoding, or what a compressed image says of itself."""
        message = self._message
        if isinstance(message, CompressedImage):
            return str(message.format)
        return f"{message.width}x{message.height} {message.encoding}"

    def image(self) -> RgbImage:
        """The RGB image. Raises MalformedImageError, which the camera has then counted and logged."""
        with self._lock:
            if self._decoded is None:
                self._decoded = self.camera._decode(self._message)
            if isinstance(self._decoded, MalformedImageError):
                raise self._decoded
            return self._decoded


class Camera:
    """A subscription and the newest frame it brought."""

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
        """`on_frame` is called in the executor after each good message and must return at once. Nothing comes before
        open(). `clock` is by default the node's."""
        self.source = source
        self.clock = clock or FrameClock(node.get_clock())
        self.topic: str = node.resolve_topic_name(source.topic)
        """The topic after namespace and remappings."""
        self.counters = CameraCounters()
        self.qos = image_qos(source.reliability, source.depth)
        """As requested; after open() with the overrides that the node's parameters have for this topic."""
        self._node = node
        self._on_frame = on_frame
        self._max_pixels = max_pixels
        self._callback_group = callback_group
        self._subscription: Any = None
        self._newest: Frame | None = None
        self._fault = ""
        self._told_of_clocks = False
        self._closed = False
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The camera's name in parameters, queries and captions."""
        return self.source.name

    def open(self, on_mismatch: Callable[[Camera], None] = lambda camera: None) -> None:
        """Subscribes. `on_mismatch` is called in the executor when a publisher turns up that cannot be received.

        Raises ConfigError where an override of the quality of service is wrong.
        """
        self._subscription = subscribe(
            self._node,
            CompressedImage if self.source.compressed else Image,
            self.source.topic,
            self._receive,
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
        self._newest = None

    def newest(self, max_age: float) -> Frame | None:
        """The newest frame if it is at most `max_age` seconds old."""
        frame = self._newest
        return frame if frame is not None and frame.age() <= max_age else None

    def use(self, max_age: float) -> Frame | None:
        """Like newest(), and the frame counts as used rather than replaced from now on."""
        with self._lock:
            frame = self.newest(max_age)
            if frame is not None:
                frame.used = True
            return frame

    def why_no_frame(self, max_age: float) -> str:
        """What a query waits for when newest() gives nothing, in words for the person who asked."""
        if self._closed:
            return f"{self.name} (the node has stopped listening to {self.topic})"
        return f"{self.name} ({self.diagnose(max_age).text})"

    def diagnose(self, max_age: float) -> Diagnosis:
        """Why there is no frame that is at most `max_age` seconds old."""
        frame, fault = self._newest, self._fault
        if fault and frame is None:
            return Diagnosis(Silence.MALFORMED, f"{self.topic} has brought only malformed images: {fault}")
        diagnosis = why_silent(self._node, self.topic, self.source.compressed, self.qos)
        if frame is None:
            return diagnosis
        age = f"the last frame on {self.topic} is {frame.age():.1f} s old, max_frame_age is {max_age:g} s"
        if fault:
            return Diagnosis(Silence.MALFORMED, f"{age}; only malformed images came after it: {fault}")
        if frame.delay() > max_age:
            return Diagnosis(
                Silence.LATE,
                f"{age}; by its stamp it was {frame.delay():.1f} s old when it came: frames wait on the way, or clocks "
                "differ (frame_clock: arrival ignores stamps)",
            )
        if diagnosis.silence is Silence.NO_MESSAGE:
            return Diagnosis(Silence.NO_MESSAGE, age)
        return Diagnosis(diagnosis.silence, f"{age}; {diagnosis.text}")

    def _receive(self, message: Any) -> None:
        frame = Frame(self, message)
        self.counters.received += 1
        try:
            check_image(message, max_pixels=self._max_pixels)
        except MalformedImageError as error:
            self._drop(error)
            return
        with self._lock:
            if self._newest is not None and not self._newest.used:
                self.counters.replaced += 1
            self._newest = frame
            self._fault = ""
        self._compare_clocks(frame)
        self._on_frame(self)

    def _compare_clocks(self, frame: Frame) -> None:
        """Says once that stamps are no use, for whoever relies on them."""
        since = frame.since_stamp
        if self._told_of_clocks or self.clock.counts_from != "auto" or math.isnan(since) or agrees(since):
            return
        self._told_of_clocks = True
        where = "behind" if since > 0 else "ahead of"
        self._node.get_logger().warning(
            f"The stamps of camera {self.name} on {self.topic} are {abs(since):.0f} s {where} "
            "this node's clock, so ages of its frames count from their arrival. A bag is replayed with `ros2 bag play "
            "--clock` and use_sim_time: true; clocks of several computers need NTP or PTP"
        )

    def _count_lost(self, count: int) -> None:
        self.counters.lost += count

    def _decode(self, message: Any) -> RgbImage | MalformedImageError:
        try:
            return decode_image(message, max_pixels=self._max_pixels)
        except MalformedImageError as error:
            self._drop(error)
            return error

    def _drop(self, error: MalformedImageError) -> None:
        with self._lock:
            first = not self.counters.dropped
            self.counters.dropped[error.fault] += 1
            self._fault = str(error)
        if first:
            self._node.get_logger().warning(
                f"Dropped an image of camera {self.name} on {self.topic}: {error}. "
                "Further malformed images of this camera are counted, not logged."
            )
