"""How captions and questions use the inference thread."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from litevlm_ros.config import PipelineConfig, SamplingConfig
from litevlm_ros.node.camera_views import Views
from litevlm_ros.node.inference import InferenceThread, Job, JobKind
from litevlm_ros.types import Answer, FinishReason, OnText

T = TypeVar("T")


class AnswerCancelledError(CancelledError):
    """An answer was stopped before it was complete."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("the answer was stopped before it was complete")
        self.answer = answer
        """What there was by then."""


class Ask(Protocol):
    """Asks the pipeline about views, on the inference thread."""

    def __call__(
        self,
        views: Views,
        question: str,
        since: float,
        sampling: SamplingConfig | None = None,
        *,
        all_views: bool = True,
        on_text: OnText | None = None,
    ) -> Answer:
        """`since` is when the request or the frame arrived, in seconds on the monotonic clock.

        Without `all_views` the pipeline may leave out views that the question does not need. `on_text` gets each piece
        of the answer. Raises AnswerCancelledError, and whatever the pipeline raises.
        """


class Submit(Protocol):
    """Queues a job for the inference thread."""

    def __call__(
        self, kind: JobKind, job: Callable[[Ask], T], *, priority: int = 0, deadline: float = math.inf
    ) -> Job[T]:
        """See `InferenceThread.submit`. The job must not keep `ask` beyond its return."""


class Inference:
    """A pipeline on its thread, with settings that may change between two answers."""

    def __init__(self, thread: InferenceThread[Any], config: PipelineConfig) -> None:
        """`config` is what the thread's pipeline was loaded with."""
        self.config = config
        """May be replaced by another that `Pipeline.change` takes; what runs already keeps the old one."""
        self.thread = thread
        self._in_pipeline = config

    def submit(
        self, kind: JobKind, job: Callable[[Ask], T], *, priority: int = 0, deadline: float = math.inf
    ) -> Job[T]:
        """See `Submit`."""

        def run(pipeline: Any, stop: threading.Event) -> T:
            began = time.monotonic()
            self._take_over_settings(pipeline)

            def ask(
                views: Views,
                question: str,
                since: float,
                sampling: SamplingConfig | None = None,
                *,
                all_views: bool = True,
                on_text: OnText | None = None,
            ) -> Answer:
                answer: Answer = pipeline.generate(views.views, question, sampling, on_text, stop, all_views=all_views)
                queue = 1e3 * max(0.0, began - since)
                total = queue + 1e3 * (time.monotonic() - began)
                timings = replace(answer.timings, queue=queue, decode_image=views.decode_ms, total=total)
                answer = replace(answer, timings=timings)
                if answer.finish_reason is FinishReason.CANCELLED:
                    raise AnswerCancelledError(answer)
                self.thread.statistics[kind].add(answer)
                return answer

            return job(ask)

        return self.thread.submit(kind, run, priority=priority, deadline=deadline)

    def _take_over_settings(self, pipeline: Any) -> None:
        config = self.config
        if self._in_pipeline != config:
            pipeline.change(config)
            self._in_pipeline = config
