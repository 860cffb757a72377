"""One job's use of the pipeline, while it has it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Any

from std_msgs.msg import Header

from litevlm_ros.config import SamplingConfig
from litevlm_ros.node.camera_views import Views
from litevlm_ros.node.statistics import JobStatistics
from litevlm_ros.types import Answer, FinishReason, OnText


class AnswerCancelledError(CancelledError):
    """A job was stopped before its answer was complete."""

    def __init__(self, answer: Answer, headers: Mapping[str, Header]) -> None:
        super().__init__("the answer was stopped before it was complete")
        self.answer = answer
        """The answer as far as it came. Its finish_reason is CANCELLED."""
        self.headers = headers
        """Header of each view's source frame, by camera."""


class Turn:
    """The use of the pipeline by one job, on the inference thread. It has no pipeline when the job has ended."""

    def __init__(self, pipeline: Any, stopping: threading.Event, statistics: JobStatistics) -> None:
        """`pipeline` has the methods of `Pipeline`. It stops generating soon after `stopping` is set."""
        self.pipeline = pipeline
        self.stopping = stopping
        self._statistics = statistics
        self._began = time.monotonic()

    def answer(
        self,
        views: Views,
        question: str,
        since: float,
        sampling: SamplingConfig | None = None,
        *,
        all_views: bool = True,
        on_text: OnText | None = None,
    ) -> Answer:
        """Asks the pipeline about views. The answer is counted in the statistics.

        `since` is the time in seconds on the monotonic clock when the request or the frame arrived. Without `all_views`
        the pipeline may leave out views that the question does not need. `on_text` gets each piece of the answer.

        Raises AnswerCancelledError if the job is stopped meanwhile, and whatever the pipeline raises.
        """
        answer: Answer = self.pipeline.generate(
            views.views, question, sampling, on_text, self.stopping, all_views=all_views
        )
        queue = 1e3 * max(0.0, self._began - since)  # a frame may arrive after its job has begun
        total = queue + 1e3 * (time.monotonic() - self._began)
        timings = replace(answer.timings, queue=queue, decode_image=views.decode_ms, total=total)
        answer = replace(answer, timings=timings)
        if answer.finish_reason is FinishReason.CANCELLED:
            raise AnswerCancelledError(answer, views.headers)
        self._statistics.add(answer)
        return answer
