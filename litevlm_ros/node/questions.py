"""The query service: checks a request, asks the pipeline and answers, always in words and never with an exception."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Any

from litevlm_ros.config import SamplingConfig
from litevlm_ros.errors import ConfigError, LiteVLMError
from litevlm_ros.node.camera_views import CameraViews, Views, decode_query_images
from litevlm_ros.node.inference import Job, JobKind
from litevlm_ros.node.inference_jobs import AnswerCancelledError, Ask, Submit
from litevlm_ros.node.messages import answer_message, image_names
from litevlm_ros.node.parameters import NodeSettings
from litevlm_ros.types import OnText


class QuestionCancelledError(CancelledError):
    """The answer was stopped before it was complete."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer
        """The litevlm_ros/Answer as far as it came."""


class QueryHandler:
    """Answers litevlm_ros/Query requests and litevlm_ros/Ask goals beside the captions, and before them."""

    def __init__(
        self,
        settings: NodeSettings,
        sampling: SamplingConfig,
        views: CameraViews,
        submit: Submit,
        publish: Callable[[Any], None],
        log: Any,
    ) -> None:
        """`publish` takes a litevlm_ros/Answer, on the inference thread."""
        self.settings = settings
        """May be replaced; requests that are queued keep the old ones. So may the sampling."""
        self.sampling = sampling
        self._views = views
        self._submit = submit
        self._publish = publish
        self._log = log

    def start(
        self, request: Any, *, priority: int = 0, deadline: float = 0.0, on_text: OnText | None = None
    ) -> Job[Any]:
        """Checks a request and queues it. The job's result is the litevlm_ros/Answer.

        `request` is a litevlm_ros/Query request or a litevlm_ros/Ask goal, whose fields are the same as far as they are
        read here. Of several that wait those with the highest `priority` come first; one that has not begun within
        `deadline` seconds (0: no limit) is given up. `on_text` gets each piece of the answer, on the inference thread.

        Raises LiteVLMError for a request that cannot be answered. So does the job, for what turns out later;
        QuestionCancelledError if it was stopped after it had begun, CancelledError if before.
        """
        received = time.monotonic()
        question = request.question.strip()
        self._check(question, request, deadline)
        names: tuple[str, ...] = tuple(dict.fromkeys(request.cameras))
        images, settings = request.images, self.settings
        if images:
            names = tuple(image_names(request.cameras, len(images)))
        else:
            self._views.check(names)
        sampling = sampling_of(request, self.sampling)

        def take() -> Views:
            if images:
                return decode_query_images(images, names, settings.max_image_pixels)
            return self._views.take(names)

        def work(ask: Ask) -> Any:
            views = take()
            try:
                answer = ask(views, question, received, sampling, all_views=bool(names), on_text=on_text)
            except AnswerCancelledError as error:
                raise QuestionCancelledError(answer_message(error.answer, views.headers)) from None
            message = answer_message(answer, views.headers)
            self._publish(message)
            return message

        return self._submit(JobKind.QUESTION, work, priority=priority, deadline=deadline or math.inf)

    def describe(self, error: BaseException) -> str:
        """What a failed request is told."""
        if isinstance(error, LiteVLMError):
            return str(error)
        if isinstance(error, CancelledError):
            return "the node stopped before the answer was complete"
        self._log.error("".join(traceback.format_exception(error)))
        return f"internal error: {error!r}; the node's log has the details"

    def _check(self, question: str, request: Any, deadline: float) -> None:
        if not question:
            raise ConfigError("the question is empty")
        limit = self.settings.max_question_chars
        if len(question) > limit:
            raise ConfigError(f"the question has {len(question)} characters; max_question_chars allows {limit}")
        if not deadline >= 0:
            raise ConfigError(f"deadline is {deadline:g}; allowed: seconds from 0, which stands for none")
        if len(request.images) > self.settings.max_query_images:
            raise ConfigError(
                f"the query has {len(request.images)} images; max_query_images allows {self.settings.max_query_images}"
            )


def sampling_of(request: Any, defaults: SamplingConfig) -> SamplingConfig:
    """The sampling that a litevlm_ros/Query asks for, whose zeros stand for defaults. Raises ConfigError."""
    return replace(
        defaults,
        max_new_tokens=request.max_new_tokens or defaults.max_new_tokens,
        temperature=request.temperature,
        top_k=request.top_k,
        top_p=request.top_p or 1.0,
        seed=request.seed or None,
    )
