"""Questions on their way to the model: which views they are about, and the job that answers them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock

from litevlm_ros.node.camera_views import CameraViews, Views, no_views, take_question_images
from litevlm_ros.node.inference import Inference, Job, JobKind
from litevlm_ros.node.messages import answer_message
from litevlm_ros.node.question_request import QuestionRequest, read_request
from litevlm_ros.node.settings import NodeSettings
from litevlm_ros.node.turn import Turn
from litevlm_ros.types import OnText


class QuestionAnswerer:
    """Answers questions on the inference thread, before the captions. It exists while the node is active."""

    def __init__(
        self,
        settings: NodeSettings,
        views: CameraViews,
        inference: Inference,
        publish: Callable[[Any], None],
        clock: Clock,
    ) -> None:
        """`publish` takes each complete litevlm_ros/Answer, on the inference thread. `clock` stamps text-only ones."""
        self.settings = settings
        """May be replaced. Questions that wait keep the old ones."""
        self._views = views
        self._inference = inference
        self._publish = publish
        self._clock = clock

    def turn_away(self, promised: int = 0) -> BaseException | None:
        """Returns the reason why no question can be queued now, and counts one as refused; None if there is room.

        `promised` places in the queue are kept for others.
        """
        return self._inference.turn_away(JobKind.QUESTION, promised=promised)

    def submit(self, request: Any, on_text: OnText | None = None) -> Job:
        """Checks a question and queues it. The result of the job's future is the litevlm_ros/Answer.

        `request` is a litevlm_ros/Query request or a litevlm_ros/Ask goal. Of several questions that wait, those with
        the highest priority come first; one that has not begun within its deadline is given up. `on_text` gets each
        piece of the answer, on the inference thread.

        Raises LiteVLMError for a question that cannot be answered. The future has LiteVLMError for what turns out
        later, AnswerCancelledError if the job was stopped after it had begun, and CancelledError if it was stopped
        before.
        """
        received = time.monotonic()
        asked = read_request(request, self.settings, self._inference.config.sampling)
        if not asked.images and not asked.text_only:
            self._views.check(asked.names)
        max_pixels = self.settings.max_image_pixels

        def work(turn: Turn) -> Any:
            views = self._take_views(asked, max_pixels)
            answer = turn.answer(
                views, asked.question, received, asked.sampling, all_views=bool(asked.names), on_text=on_text
            )
            message = answer_message(answer, views.headers, self._clock.now().to_msg())
            self._publish(message)
            return message

        return self._inference.submit(JobKind.QUESTION, work, priority=asked.priority, deadline=asked.deadline)

    def _take_views(self, asked: QuestionRequest, max_pixels: int) -> Views:
        if asked.text_only:
            return no_views()
        if asked.images:
            return take_question_images(asked.images, asked.names, max_pixels, self._views.raw_encodings)
        return self._views.take(asked.names)
