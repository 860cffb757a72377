"""Questions, from request to answer: the service `~/query` and the action `~/ask`.

A question waits for its answer without a thread: the callbacks are coroutines, and others run meanwhile. Every question
gets a response. One that cannot be answered is told why in words.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from typing import Any

from rclpy.action.server import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future as RosFuture
from std_msgs.msg import Header

from litevlm_ros import types
from litevlm_ros.action import Ask
from litevlm_ros.config import SamplingConfig
from litevlm_ros.errors import ConfigError, EngineError, LiteVLMError, printable
from litevlm_ros.node.camera_views import NO_CAMERAS, CameraViews, Views, no_views, take_question_images
from litevlm_ros.node.inference import AnswerCancelledError, Inference, Job, JobKind, Turn
from litevlm_ros.node.messages import answer_message, image_names
from litevlm_ros.node.settings import NodeSettings
from litevlm_ros.srv import Query
from litevlm_ros.types import OnText

_RESULT_SECONDS = 30
"""Seconds for which the result of a goal is kept for a client that fetches it late."""

_QUERIES = QoSProfile(depth=1000)
"""With ROS's default depth of 10, most of many requests or responses at the same time would be lost without a word."""

_LISTENER_SECONDS = 0.25
"""Seconds between two looks whether anybody still listens to a streamed answer."""


class QuestionAnswerer:
    """Answers questions on the inference thread, before the captions. It exists while the node is active."""

    def __init__(
        self,
        settings: NodeSettings,
        views: CameraViews,
        inference: Inference,
        publish: Callable[[Any], None],
        clock: Clock,
        log: Any,
    ) -> None:
        """`publish` takes each complete litevlm_ros/Answer, on the inference thread. `clock` stamps text-only ones."""
        self.settings = settings
        """May be replaced. Questions that wait keep the old ones."""
        self._views = views
        self._inference = inference
        self._publish = publish
        self._clock = clock
        self._log = log

    def submit(self, request: Any, *, priority: int = 0, deadline: float = 0.0, on_text: OnText | None = None) -> Job:
        """Checks a question and queues it. The result of the job's future is the litevlm_ros/Answer.

        `request` is a litevlm_ros/Query request or a litevlm_ros/Ask goal, whose fields are the same as far as they are
        read here. Of several questions that wait, those with the highest `priority` come first; one that has not begun
        within `deadline` seconds (0: no limit) is given up. `on_text` gets each piece of the answer, on the inference
        thread.

        Raises LiteVLMError for a question that cannot be answered. The future has LiteVLMError for what turns out
        later, AnswerCancelledError if the job was stopped after it had begun, and CancelledError if it was stopped
        before.
        """
        received = time.monotonic()
        question = request.question.strip()
        self._check(question, request, deadline)
        settings, images = self.settings, request.images
        names: tuple[str, ...] = tuple(dict.fromkeys(request.cameras))
        text_only = NO_CAMERAS in names
        if text_only:
            _check_none(names, len(images))
        elif images:
            names = tuple(image_names(request.cameras, len(images)))
        else:
            self._views.check(names)
        sampling = requested_sampling(request, self._inference.config.sampling)

        def take_views() -> Views:
            if text_only:
                return no_views()
            if images:
                return take_question_images(images, names, settings.max_image_pixels, self._views.raw_encodings)
            return self._views.take(names)

        def work(turn: Turn) -> Any:
            views = take_views()
            answer = turn.answer(views, question, received, sampling, all_views=bool(names), on_text=on_text)
            message = self.message(answer, views.headers)
            self._publish(message)
            return message

        return self._inference.submit(JobKind.QUESTION, work, priority=priority, deadline=deadline or math.inf)

    def message(self, answer: types.Answer, headers: Mapping[str, Header]) -> Any:
        """Returns a litevlm_ros/Answer. `headers` holds the source frame's header of every camera in the answer."""
        return answer_message(answer, headers, self._clock.now().to_msg())

    def describe(self, error: BaseException) -> str:
        """Returns the words for the client whose question ended with this error.

        Logs errors that are not the client's: the model's and unexpected ones.
        """
        if isinstance(error, EngineError):
            self._log.error(f"No answer to a question: {error}")
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


class QuestionServers:
    """The service and the action of one node. They exist in all of the node's states."""

    def __init__(self, node: Node, why_not_active: Callable[[], str]) -> None:
        """`why_not_active` returns what clients are told while there is no answerer."""
        self.answerer: QuestionAnswerer | None = None
        """Is set by the node while it is active."""
        self.open_questions = 0
        """Questions whose response or result has not been sent yet."""
        self._node = node
        self._why_not_active = why_not_active
        self._jobs: dict[bytes, Job] = {}  # by the id of their goal
        group = ReentrantCallbackGroup()
        node.create_service(Query, "~/query", self._on_query, qos_profile=_QUERIES, callback_group=group)
        self._action = ActionServer(
            node,
            Ask,
            "~/ask",
            self._on_goal,
            callback_group=group,
            cancel_callback=self._on_cancel,
            result_timeout=_RESULT_SECONDS,
        )

    def destroy(self) -> None:
        """Ends the action, which a node does not do by itself."""
        self._action.destroy()

    async def _on_query(self, request: Any, response: Any) -> Any:
        self.open_questions += 1
        await self._respond(response, lambda answerer: answerer.submit(request))
        self.open_questions -= 1
        return response

    async def _on_goal(self, goal: Any) -> Any:
        result = Ask.Result()
        self.open_questions += 1
        await self._respond(result, lambda answerer: self._submit_goal(answerer, goal))
        self._close_later()
        self._jobs.pop(bytes(goal.goal_id.uuid), None)
        goal.request.images = []  # rclpy keeps the request as long as the result
        if result.success:
            goal.succeed()
        elif goal.is_cancel_requested:
            result.error = "cancelled by the client"
            goal.canceled()
        else:
            goal.abort()
        return result

    def _submit_goal(self, answerer: QuestionAnswerer, goal: Any) -> Job:
        request = goal.request
        stream = _Stream(self._node, goal, lambda: self._on_cancel(goal))
        job = answerer.submit(request, priority=request.priority, deadline=request.deadline, on_text=stream.add)
        self._jobs[bytes(goal.goal_id.uuid)] = job
        if goal.is_cancel_requested:
            job.cancel()
        return job

    def _on_cancel(self, goal: Any) -> Any:
        job = self._jobs.get(bytes(goal.goal_id.uuid))
        if job is not None:
            job.cancel()
        return CancelResponse.ACCEPT

    async def _respond(self, response: Any, submit: Callable[[QuestionAnswerer], Job]) -> None:
        """Fills in a Query response or an Ask result when the job that `submit` queues has ended."""
        answerer = self.answerer
        if answerer is None:
            response.error = self._why_not_active()
            return
        try:
            job = submit(answerer)
            await self._ended(job.future)
            response.answer = job.future.result()
            response.success = True
        except AnswerCancelledError as error:
            response.answer = answerer.message(error.answer, error.headers)
            response.error = answerer.describe(error)
        except Exception as error:
            response.error = answerer.describe(error)

    def _close_later(self) -> None:
        """Counts a goal as open until its result is sent, which rclpy does in a task after the goal's own."""
        executor: Any = self._node.executor

        def close() -> None:
            self.open_questions -= 1

        executor.create_task(lambda: executor.create_task(close))

    def _ended(self, future: Future[Any]) -> RosFuture:
        """Returns a future that callbacks can await until `future` is done in another thread."""
        executor = self._node.executor
        ended = RosFuture()

        def wake(_: Future[Any]) -> None:
            ended.set_result(None)
            if executor is not None:
                executor.wake()

        future.add_done_callback(wake)
        return ended


class _Stream:
    """The feedback of one goal, published on the inference thread."""

    def __init__(self, node: Node, goal: Any, on_nobody: Callable[[], Any]) -> None:
        """`on_nobody` is called when all listeners are gone, as when a client is killed."""
        self._node = node
        self._goal = goal
        self._on_nobody = on_nobody
        self._topic = node.resolve_topic_name("~/ask/_action/feedback")
        self._text = ""
        self._listened = False
        self._next_look = 0.0

    def add(self, piece: str, tokens: int) -> None:
        """Publishes the next piece of the answer. `tokens` is the number of tokens of the answer so far."""
        self._text += piece
        self._goal.publish_feedback(Ask.Feedback(piece=piece, text=self._text, generated_tokens=tokens))
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LISTENER_SECONDS
            listens = self._node.count_subscribers(self._topic) > 0
            if self._listened and not listens:
                self._on_nobody()
            self._listened |= listens


def _check_none(names: Sequence[str], images: int) -> None:
    """Raises ConfigError unless a question that is about no image says just that."""
    if images:
        raise ConfigError(f"cameras names an image {NO_CAMERAS}, which stands for no image; give it another name")
    if len(names) > 1:
        others = printable(", ".join(name for name in names if name != NO_CAMERAS))
        raise ConfigError(
            f"cameras has {NO_CAMERAS}, which stands for no camera, beside {others}; leave one of them out"
        )


def requested_sampling(request: Any, defaults: SamplingConfig) -> SamplingConfig:
    """Returns the sampling that a request asks for, whose zeros stand for defaults. Raises ConfigError."""
    return replace(
        defaults,
        max_new_tokens=request.max_new_tokens or defaults.max_new_tokens,
        temperature=request.temperature,
        top_k=request.top_k,
        top_p=request.top_p or 1.0,
        seed=request.seed or None,
    )
