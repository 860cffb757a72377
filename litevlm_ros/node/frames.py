"""One image message of a camera: its age, and its pixels, which are decoded when they are needed."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection
from typing import Any

from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from litevlm_ros.errors import MalformedImageError
from litevlm_ros.node.frame_clock import FrameClock
from litevlm_ros.types import AnyImage, RawImage

_NUMBERS = itertools.count()


class Frame:
    """One received message, decoded at most once."""

    def __init__(
        self,
        message: Any,
        clock: FrameClock,
        decode: Callable[[Any, Collection[str]], AnyImage],
        *,
        latched: bool = False,
    ) -> None:
        """`decode` takes a message and the encodings that stay raw, and may raise MalformedImageError.

        A `latched` message was kept by its publisher for those who come later, and may have been sent long ago.
        """
        self.number = next(_NUMBERS)
        """Sequence number, unique in this process."""
        self.since_stamp = clock.since(message.header.stamp)
        """Seconds from the stamp to the arrival on the node's clock. NaN without a stamp."""
        self.used = False
        """True after Camera.use() returned this frame."""
        self.latched = latched
        self._clock = clock
        self._arrived = clock.now()
        self._decode = decode
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
        """Returns the seconds since the frame was taken, or since it arrived if its stamp cannot be used.

        They are infinite if the simulated clock was set back after its arrival.
        """
        return self.delay() + self._arrived.seconds_until(self._clock.now())

    def simulated_seconds(self) -> float:
        """Returns the seconds on the simulated clock since the arrival, below 0 if it was set back; 0 without one."""
        return self._arrived.simulated_seconds_until(self._clock.now())

    def delay(self) -> float:
        """Returns the frame's age in seconds when it arrived."""
        return self._clock.delay(self.since_stamp, latched=self.latched)

    def describe_age(self, max_age: float) -> str:
        """Returns the age in words, with what explains it and the fix, for a frame that is older than `max_age`."""
        limit, simulated = f"max_frame_age is {max_age:g} s", self.simulated_seconds()
        if simulated < 0:
            return f"is from before /clock was set back by {-simulated:.1f} s, as when a bag begins again"
        age, delay = self.age(), self.delay()
        text = f"is {age:.1f} s old, {limit}"
        if self.latched:
            return (
                f"{text}; a publisher keeps it for late subscribers (latched), so raise max_frame_age to use it longer"
            )
        if delay > max_age:
            return (
                f"{text}; by its stamp it was {delay:.1f} s old when it came: frames wait on the way, or clocks differ "
                "(frame_clock: arrival ignores stamps)"
            )
        if simulated > 0 and delay + simulated <= max_age and self._clock.moves():
            speed = simulated / (age - delay)
            return (
                f"{text} in real time too; the simulation runs at {speed:.2f} times real time, so raise max_frame_age"
            )
        return text

    def kind(self) -> str:
        """Returns size and encoding, such as `640x480 rgb8`, or the format of a compressed image."""
        message = self._message
        if isinstance(message, CompressedImage):
            return str(message.format)
        return f"{message.width}x{message.height} {message.encoding}"

    def image(self, raw_encodings: Collection[str] = ()) -> AnyImage:
        """Returns the image, which is RGB unless its message is raw and of one of `raw_encodings`.

        Raises MalformedImageError, each time the same one.
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
            return self._decode(self._message, raw_encodings)
        except MalformedImageError as error:
            return error
