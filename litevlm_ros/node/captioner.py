"""Captions: each camera's newest frame, once a period."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from litevlm_ros.errors import LiteVLMError, NoFrameError
from litevlm_ros.images.decoding import as_rgb
from litevlm_ros.node.camera_views import CameraViews
from litevlm_ros.node.cameras import Camera
from litevlm_ros.node.inference import Inference, JobKind
from litevlm_ros.node.messages import caption_message
from litevlm_ros.node.settings import NodeSettings
from litevlm_ros.node.turn import Turn
from litevlm_ros.types import AnyImage
from litevlm_ros.vision.frame_change import ChangeGate, mosaic

_EARLY = 0.1
"""Share of a period by which a frame may be early, so that one that comes just before its caption is due is used."""


class Captioner:
    """Captions each camera once a period, always on its newest frame.

    The arrival of a frame starts a caption where one is due. So a camera without new frames has none, and each camera
    has at most one waiting: where inference is slower than the period asks for, cameras take turns. Where the settings
    say so, views that have not changed since their last caption are left out and counted. A caption that was stopped
    for a question starts again, behind those of the other cameras that wait.
    """

    def __init__(
        self,
        settings: NodeSettings,
        views: CameraViews,
        inference: Inference,
        publish: Callable[[Any, AnyImage], None],
        log: Any,
    ) -> None:
        """`publish` takes a litevlm_ros/Caption and the image that it is about, on the inference thread."""
        self.settings = settings
        """May be replaced at any time."""
        self._views = views
        self._inference = inference
        self._publish = publish
        self._log = log
        # When each camera's last caption was due, in seconds on the monotonic clock.
        self._last: dict[str, float] = {}
        self._gates: dict[str, ChangeGate] = {}
        self._waiting: dict[str, object] = {}
        self._lock = threading.Lock()

    def on_frame(self, camera: Camera) -> None:
        """Queues a caption if one is due. Has to be called after each new frame, and returns at once."""
        now = time.monotonic()
        with self._lock:
            if camera.name in self._waiting or not self._is_due(camera.name, now):
                return
            place = self._waiting[camera.name] = object()

        def work(turn: Turn) -> None:
            # From here on a newer frame may ask for the next caption.
            self._waits_no_longer(camera, place)
            self._caption(camera, turn)

        def finished(future: Future[None]) -> None:
            self._waits_no_longer(camera, place)
            error = None if future.cancelled() else future.exception()
            if job.preempted and isinstance(error, CancelledError):
                self._caption_again(camera)
            elif error is not None:
                self._report(camera, error)

        job = self._inference.submit(JobKind.CAPTION, work)
        job.future.add_done_callback(finished)

    def _waits_no_longer(self, camera: Camera, place: object) -> None:
        with self._lock:
            if self._waiting.get(camera.name) is place:
                del self._waiting[camera.name]

    def _caption_again(self, camera: Camera) -> None:
        with self._lock:
            self._last.pop(camera.name, None)
        self.on_frame(camera)

    def _caption(self, camera: Camera, turn: Turn) -> None:
        settings = self.settings
        threshold = settings.caption_change_threshold
        views = self._views.take([camera.name], decoded=threshold > 0)
        image = views.views[0].image
        frame = mosaic(as_rgb(image)) if threshold else None
        gate = self._gates.setdefault(camera.name, ChangeGate())
        if frame is not None and not gate.opens(frame, time.monotonic(), threshold, settings.caption_max_hold):
            camera.counters.unchanged += 1
            return
        answer = turn.answer(views, settings.caption_prompt, views.arrival)
        if frame is not None:
            gate.used(frame, time.monotonic())
        self._publish(caption_message(answer, camera.name, views.headers[camera.name]), image)

    def _is_due(self, camera: str, now: float) -> bool:
        """Returns True if a frame of this moment is to be captioned. The next one is then due a period later."""
        period = self.settings.caption_period
        if not period or camera not in self.settings.caption_cameras:
            return False
        due = self._last.get(camera, -math.inf) + period
        if now - due < -_EARLY * period:
            return False
        # Counting on from the due time, not from now, keeps the rate where frames come at nearly the same period.
        self._last[camera] = due if now - due < period / 2 else now
        return True

    def _report(self, camera: Camera, error: BaseException) -> None:
        # The node stops; or a frame grew old or was malformed, which the camera has counted and logged.
        if isinstance(error, (CancelledError, NoFrameError)):
            return
        what = str(error) if isinstance(error, LiteVLMError) else f"internal error: {error!r}"
        self._log.error(f"No caption of camera {camera.name}: {what}", throttle_duration_sec=10.0)
