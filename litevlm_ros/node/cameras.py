"""Camera subscriptions: the newest frame of each camera, and nothing older.

A subscription's callback only checks a message's fields and stores the message. Its pixels are decoded when the frame
is used, in the thread that uses it, so the executor never spends time on images that nobody asked about.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from litevlm_ros.errors import ImageFault, MalformedImageError
from litevlm_ros.images.decoding import MAX_PIXELS
from litevlm_ros.node.camera_topics import Diagnosis, Silence, image_qos, subscribe, why_silent
from litevlm_ros.node.frame_clock import FrameClock, agrees
from litevlm_ros.node.messages import check_image, take_image
from litevlm_ros.types import AnyImage, RawImage

_NUMBERS = itertools.count()


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


class Frame:
    """One received message, decoded at most once."""

    def __init__(self, camera: Camera, message: Any) -> None:
        self.camera = camera
        self.number = next(_NUMBERS)
        """Sequence number, unique in this process."""
        self.since_stamp = camera.clock.since(message.header.stamp)
        """Seconds from the stamp to the arrival on the node's clock. NaN without a stamp."""
        self.used = False
        """True after Camera.use() returned this frame."""
        self._arrived = camera.clock.now()
        self._message = message
        self._kept: AnyImage | MalformedImageError | None = None
        self._lock = threading.Lock()

    @property
    def header(self) -> Header:
        """The message's header: when and where the image was taken."""
        return self._message.header

    @property
    def arrival(self) -> float:
        """Time of arrival in seconds on the monotonic clock."""
        return self._arrived.steady

    def age(self) -> float:
        """Returns the seconds since the frame was taken, or since it arrived if its stamp cannot be used."""
        return self.delay() + self._arrived.seconds_until(self.camera.clock.now())

    def delay(self) -> float:
        """Returns the frame's age in seconds when it arrived."""
        return self.camera.clock.delay(self.since_stamp)

    def kind(self) -> str:
        """Returns size and encoding, such as `640x480 rgb8`, or the format of a compressed image."""
        message = self._message
        if isinstance(message, CompressedImage):
            return str(message.format)
        return f"{message.width}x{message.height} {message.encoding}"

    def image(self, raw_encodings: Collection[str] = ()) -> AnyImage:
        """Returns the image, which is RGB unless its message is raw and of one of `raw_encodings`.

        Raises MalformedImageError, which the camera has then counted.
        """
        with self._lock:
            kept = self._kept
            if kept is None or (isinstance(kept, RawImage) and kept.encoding not in raw_encodings):
                kept = self._kept = self._take(raw_encodings)
            if isinstance(kept, MalformedImageError):
                raise kept
            return kept

    def _take(self, raw_encodings: Collection[str]) -> AnyImage | MalformedImageError:
        try:
            return take_image(self._message, raw_encodings, max_pixels=self.camera.max_pixels)
        except MalformedImageError as error:
            self.camera.count_malformed(error)
            return error


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
        self.clock = clock or FrameClock(node.get_clock())
        self.topic: str = node.resolve_topic_name(source.topic)
        """The topic after namespace and remappings."""
        self.counters = CameraCounters()
        self.qos = image_qos(source.reliability, source.depth)
        """The requested QoS. After open(), it has the overrides that the node's parameters have for this topic."""
        self._node = node
        self._on_frame = on_frame
        self.max_pixels = max_pixels
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
        """Subscribes. `on_mismatch` is called in the executor when a publisher with an incompatible QoS is found.

        Raises ConfigError if an override of the QoS is wrong.
        """
        self._subscription = subscribe(
            self._node,
            CompressedImage if self.source.compressed else Image,
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
        self._newest = None

    def receive(self, message: Any) -> None:
        """Stores a message as the newest frame, unless it is malformed. This is the subscription's callback."""
        frame = Frame(self, message)
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
        self._compare_clocks(frame)
        self._on_frame(self)

    def newest(self, max_age: float) -> Frame | None:
        """Returns the newest frame, or None if there is none that is at most `max_age` seconds old."""
        frame = self._newest
        return frame if frame is not None and frame.age() <= max_age else None

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

    def _compare_clocks(self, frame: Frame) -> None:
        """Logs once that this camera's stamps cannot be used."""
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
