"""Watches whether images of the cameras arrive, all of them and from one publisher, and logs each change once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]  # where Humble and Jazzy both have it
from rclpy.node import Node

from litevlm_ros.node.camera_topics import Diagnosis, Silence
from litevlm_ros.node.cameras import Camera
from litevlm_ros.node.image_loss import Losses
from litevlm_ros.node.statistics import Rate

PERIOD = 1.0
"""Seconds between two looks at the cameras."""

PATIENCE = 5.0
"""Seconds that a camera may take until its first image and between two images. Discovery and drivers start slowly."""

LOSS_LOG_PERIOD = 600.0
"""Seconds between two lines of the log about lost images of one camera."""

_AT_ONCE = (Silence.WRONG_TYPE, Silence.INCOMPATIBLE_QOS, Silence.LATE)
"""Reasons that do not go away by waiting, so that they are reported at once."""

_SAID_ELSEWHERE = (Silence.CLOCK, Silence.LOST)
"""Reasons with a line of their own in the log: that of the node's clock, or that of lost images."""


class CameraWatch:
    """The state of one camera: its images arrive, or the reason why they do not."""

    def __init__(self, camera: Camera, log: Any) -> None:
        self.camera = camera
        self.diagnosis: Diagnosis | None = None
        """Reason why there is no usable frame. None while there is one, or while the camera still has time to begin."""
        self.brings_images = False
        """True if images arrived when the camera was last looked at."""
        self.rate = Rate()
        """Rate of the images over the last few seconds."""
        self.loss = ""
        """Share of the images that is being lost, with the fix; '' if that is normal."""
        self.rivals = ""
        """Nodes that publish to the camera's topic, with the fix, if there are several; '' otherwise."""
        self._log = log
        self._began = time.monotonic()
        self._told: Silence | None = None
        self._losses = Losses()
        self._told_of_loss = -math.inf
        self._publishers: list[str] = []
        self._several_since = math.inf

    def look(self, max_age: float) -> None:
        """Updates the state and logs changes. `max_age` is the largest age of a usable frame, in seconds."""
        camera, now = self.camera, time.monotonic()
        self.rate.look(now, camera.counters.received)
        self._look_at_publishers(now)
        self._look_at_losses(now)
        frame = camera.newest(max(max_age, PATIENCE))
        if frame is not None and frame.delay() <= max_age and camera.clock.tells_ages(max_age):
            self._arrives()
            return
        last = camera.last()
        if last is not None and math.isinf(last.age()) and now - last.arrival <= PATIENCE:
            return  # a bag has begun again, and its next image comes soon
        diagnosis = camera.diagnose(max_age)
        if self.brings_images or now - self._began > PATIENCE or diagnosis.silence in _AT_ONCE:
            self._stays_away(diagnosis)

    def _arrives(self) -> None:
        if not self.brings_images:
            self._log.info(f"Camera {self.camera.name}: images arrive on {self.camera.topic}")
        self.brings_images, self.diagnosis, self._told = True, None, None

    def _stays_away(self, diagnosis: Diagnosis) -> None:
        self.brings_images, self.diagnosis = False, diagnosis
        if self._told is not diagnosis.silence:
            self._told = diagnosis.silence
            if diagnosis.silence in _SAID_ELSEWHERE:
                return
            self._log.warning(f"Camera {self.camera.name} brings no images: {diagnosis.text}")

    def _look_at_losses(self, now: float) -> None:
        camera = self.camera
        self._losses.look(camera.counters.received, camera.counters.lost)
        share = self._losses.warning()
        if not share:
            self.loss = ""
            return
        self.loss = f"{share}; {camera.loss_fix()}"
        if now - self._told_of_loss > LOSS_LOG_PERIOD:
            self._told_of_loss = now
            self._log.warning(f"Camera {camera.name} on {camera.topic}: {self.loss}")

    def _look_at_publishers(self, now: float) -> None:
        """Compares the publishers with those of the last look. Several are told when they have stayed for a while."""
        names = sorted(self.camera.look_at_publishers())
        if len(names) < 2:
            self._several_since, self.rivals = math.inf, ""
            return
        self._several_since = min(self._several_since, now)
        if now - self._several_since < PATIENCE or (self.rivals and names == self._publishers):
            return
        self._publishers = names
        self.rivals = (
            f"{len(names)} publishers send images to {self.camera.topic}: {', '.join(names)}; the camera shows now "
            "one, now the other, so stop or remap one (a node that was killed stays listed for up to 20 s)"
        )
        self._log.warning(f"Camera {self.camera.name}: {self.rivals}")


class CameraWatches:
    """Looks at all cameras once a second, in the executor."""

    def __init__(self, node: Node, cameras: Iterable[Camera], max_age: Callable[[], float]) -> None:
        """Begins at once. `max_age` returns the current value of the parameter max_frame_age."""
        self._watches = {camera.name: CameraWatch(camera, node.get_logger()) for camera in cameras}
        self._max_age = max_age
        self._node = node
        # A steady clock: a simulation's may stand still.
        self._timer = node.create_timer(PERIOD, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    @property
    def states(self) -> Mapping[str, CameraWatch]:
        """The state of each camera, by its name."""
        return self._watches

    def look_at(self, camera: Camera) -> None:
        """Looks at one camera now, not only when the next second has passed."""
        self._watches[camera.name].look(self._max_age())

    def close(self) -> None:
        """Stops looking."""
        self._node.destroy_timer(self._timer)

    def _look(self) -> None:
        for watch in self._watches.values():
            watch.look(self._max_age())
