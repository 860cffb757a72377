"""How captions and queries use the inference thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from litevlm_ros.config import PipelineConfig, SamplingConfig
from litevlm_ros.scheduler import InferenceThread, Priority
from litevlm_ros.types import Answer
from litevlm_ros.views import Views

T = TypeVar("T")


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
    ) -> Answer:
        """`since` is when the request or the frame arrived, in seconds on the monotonic clock.

        Without `all_views` the pipeline may leave out views that the question does not need.
        """


class Submit(Protocol):
    """Queues a job for the inference thread."""

    def __call__(self, priority: Priority, job: Callable[[Ask], T]) -> Future[T]:
        """The job must not keep `ask` beyond its return."""


class Inference:
    """A pipeline on its thread, with settings that may change between two answers."""

    def __init__(self, thread: InferenceThread[Any], config: PipelineConfig) -> None:
        """`config` is what the thread's pipeline was loaded with."""
        self.config = config
        """May be replaced by another that `Pipeline.change` takes; what runs already keeps the old one."""
        self._thread = thread
        self._in_pipeline = config

    def submit(self, priority: Priority, job: Callable[[Ask], T]) -> Future[T]:
        """See `Submit`."""

        def run(pipeline: Any, cancel: threading.Event) -> T:
            began = time.monotonic()
            config = self.config
            if self._in_pipeline != config:
                pipeline.change(config)
                self._in_pipeline = config

            def ask(
                views: Views,
                question: str,
                since: float,
                sampling: SamplingConfig | None = None,
                *,
                all_views: bool = True,
            ) -> Answer:
                answer: Answer = pipeline.generate(views.views, question, sampling, cancel=cancel, all_views=all_views)
                queue = 1e3 * max(0.0, began - since)
                total = queue + 1e3 * (time.monotonic() - began)
                timings = replace(answer.timings, queue=queue, decode_image=views.decode_ms, total=total)
                return replace(answer, timings=timings)

            return job(ask)

        return self._thread.submit(priority, run)
