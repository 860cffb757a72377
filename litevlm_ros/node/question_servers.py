"""The service `~/query` and the action `~/ask`: how questions arrive, and how their answers go back.

A question waits for its answer without a thread: callbacks are coroutines, beside which others may run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from rclpy.action.server import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future as RosFuture

from litevlm_ros.action import Ask
from litevlm_ros.node.inference import Job
from litevlm_ros.node.questions import QueryHandler, QuestionCancelledError
from litevlm_ros.srv import Query

RESULT_SECONDS = 30
"""How long the result of a goal is kept for a client that asks late for it."""

_QUERIES = QoSProfile(depth=1000)
"""With ROS's default of 10, of many requests or responses at once most would be lost without a word."""

_LISTENER_SECONDS = 0.25
"""How often to look whether anybody still listens to a streamed answer."""


class QuestionServers:
    """Both servers of one node."""

    def __init__(self, node: Node, handler: Callable[[], QueryHandler | None], why_not: Callable[[], str]) -> None:
        """`handler` gives what answers questions now; where there is nothing, `why_not` says what clients are told."""
        self._node = node
        self._handler = handler
        self._why_not = why_not
        self._goals: dict[bytes, Job[Any]] = {}
        self._open = 0
        group = ReentrantCallbackGroup()
        node.create_service(Query, "~/query", self._on_query, qos_profile=_QUERIES, callback_group=group)
        self._ask = ActionServer(
            node,
            Ask,
            "~/ask",
            self._on_ask,
            callback_group=group,
            cancel_callback=self._on_cancel,
            result_timeout=RESULT_SECONDS,
        )

    @property
    def has_open_questions(self) -> bool:
        """Whether a client still waits for its response or result."""
        return self._open > 0

    def destroy(self) -> None:
        """Ends the action, which a node does not do by itself."""
        self._ask.destroy()

    async def _on_query(self, request: Any, response: Any) -> Any:
        self._open += 1
        await self._answer(response, lambda handler: handler.start(request))
        self._open -= 1
        return response

    async def _on_ask(self, goal: Any) -> Any:
        key, request, result = bytes(goal.goal_id.uuid), goal.request, Ask.Result()

        def start(handler: QueryHandler) -> Job[Any]:
            stream = _Stream(self._node, goal, lambda: self._on_cancel(goal))
            job = handler.start(request, priority=request.priority, deadline=request.deadline, on_text=stream.add)
            self._goals[key] = job
            if goal.is_cancel_requested:
                job.cancel()
            return job

        self._open += 1
        await self._answer(result, start)
        self._close_later()
        self._goals.pop(key, None)
        request.images = []  # rclpy keeps the request as long as the result
        if result.success:
            goal.succeed()
        elif goal.is_cancel_requested:
            result.error = "cancelled by the client"
            goal.canceled()
        else:
            goal.abort()
        return result

    def _on_cancel(self, goal: Any) -> Any:
        job = self._goals.get(bytes(goal.goal_id.uuid))
        if job is not None:
            job.cancel()
        return CancelResponse.ACCEPT

    async def _answer(self, response: Any, start: Callable[[QueryHandler], Job[Any]]) -> None:
        """Fills in a Query response or an Ask result."""
        handler = self._handler()
        if handler is None:
            response.error = self._why_not()
            return
        try:
            job = start(handler)
            await self._finished(job.future)
            response.answer = job.future.result()
            response.success = True
        except QuestionCancelledError as error:
            response.answer = error.answer
            response.error = handler.describe(error)
        except Exception as error:
            response.error = handler.describe(error)

    def _close_later(self) -> None:
        """A goal is open until its result is sent, for which rclpy makes a task when the goal's own has ended."""
        executor: Any = self._node.executor

        def close() -> None:
            self._open -= 1

        executor.create_task(lambda: executor.create_task(close))

    def _finished(self, future: Future[Any]) -> RosFuture:
        """Something to await in a callback until `future` is done in another thread."""
        executor = self._node.executor
        finished = RosFuture()

        def wake(_: Future[Any]) -> None:
            finished.set_result(None)
            if executor is not None:
                executor.wake()

        future.add_done_callback(wake)
        return finished


class _Stream:
    """The feedback of one goal, published on the inference thread."""

    def __init__(self, node: Node, goal: Any, on_nobody: Callable[[], Any]) -> None:
        """`on_nobody` is called when all who listened are gone, as a client is that was killed."""
        self._node = node
        self._goal = goal
        self._on_nobody = on_nobody
        self._topic = node.resolve_topic_name("~/ask/_action/feedback")
        self._text = ""
        self._listened = False
        self._next_look = 0.0

    def add(self, piece: str, tokens: int) -> None:
        """Publishes a further piece of the answer, which has so many tokens now."""
        self._text += piece
        self._goal.publish_feedback(Ask.Feedback(piece=piece, text=self._text, generated_tokens=tokens))
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LISTENER_SECONDS
            listens = self._node.count_subscribers(self._topic) > 0
            if self._listened and not listens:
                self._on_nobody()
            self._listened |= listens
