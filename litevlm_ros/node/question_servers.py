"""The servers of questions: the service `~/query` and the action `~/ask`.

A question waits for its answer without a thread: the callbacks are coroutines, and others run meanwhile. Every request
gets a response, however many come at the same time. A query that cannot be answered, and a goal that was accepted, is
told why in words and as a number. A goal for which there is no room, or no active node, is rejected, and the log says
why.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any

from rclpy.action.server import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile

from litevlm_ros.action import Ask
from litevlm_ros.errors import NotActiveError
from litevlm_ros.msg import ErrorCode
from litevlm_ros.node.awaiting import ended
from litevlm_ros.node.failures import Failure, failure_of
from litevlm_ros.node.inference import Job
from litevlm_ros.node.messages import answer_message
from litevlm_ros.node.question_request import forget_images
from litevlm_ros.node.questions import QuestionAnswerer
from litevlm_ros.node.response_pace import ResponsePace
from litevlm_ros.node.turn import AnswerCancelledError
from litevlm_ros.srv import Query
from litevlm_ros.types import OnText

MOST_GOALS = 3000
"""Goals that are known at the same time, those included whose result is kept. Each status message lists all of them."""

_RESULT_SECONDS = 30
"""Seconds for which the result of a goal is kept for a client that fetches it late."""

_MANY = QoSProfile(depth=4000)
"""With ROS's default depth of 10, most of many messages at the same time would be lost without a word.

Fast DDS keeps responses for a client that was killed until it misses it, after 20 s. A client that is new meanwhile
gets its responses behind them, seconds later.
"""

_LOG_SECONDS = 5.0
"""Least seconds between two lines in the log about rejected goals."""

_LISTENER_SECONDS = 0.25
"""Seconds between two looks whether anybody still listens to a streamed answer."""


class QuestionServers:
    """The service and the action of one node. They exist in all of the node's states."""

    def __init__(self, node: Node, why_not_active: Callable[[], str]) -> None:
        """`why_not_active` returns what clients are told while there is no answerer."""
        self.answerer: QuestionAnswerer | None = None
        """Is set by the node while it is active."""
        self.open_questions = 0
        """Requests whose response or result has not been sent yet."""
        self._node = node
        self._log = node.get_logger()
        self._why_not_active = why_not_active
        self._asked: dict[bytes, Job | Failure] = {}  # by the id of their goal
        self._promised = 0  # places in the queue, for goals that wait for their turn to be accepted
        self._goals: set[bytes] = set()  # ids of those that rclpy knows
        group = ReentrantCallbackGroup()
        self._pace = {part: ResponsePace(node, group) for part in ("query", "goal", "result")}
        node.create_service(Query, "~/query", self._on_query, qos_profile=_MANY, callback_group=group)
        self._action = ActionServer(
            node,
            Ask,
            "~/ask",
            self._on_goal,
            callback_group=group,
            goal_callback=self._on_goal_request,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
            goal_service_qos_profile=_MANY,
            result_service_qos_profile=_MANY,
            cancel_service_qos_profile=_MANY,
            feedback_pub_qos_profile=_MANY,
            result_timeout=_RESULT_SECONDS,
        )

    def destroy(self) -> None:
        """Ends the action, which a node does not do by itself."""
        self._action.destroy()

    # --- the service

    async def _on_query(self, request: Any, response: Any) -> Any:
        self.open_questions += 1
        asked = self._ask(request)
        forget_images(request)
        await self._respond(response, asked)
        await self._pace["query"].turn(refusal=not response.success)
        self.open_questions -= 1
        return response

    # --- the action, in the order of its callbacks

    async def _on_goal_request(self, request: Any) -> GoalResponse:
        """Decides whether a goal is accepted. Until its turn comes, a goal keeps its images only if there is room."""
        self.open_questions += 1
        reason = self._why_rejected()
        if reason:
            forget_images(request)
            await self._pace["goal"].turn(refusal=True)
        else:
            self._promised += 1
            await self._pace["goal"].turn()
            self._promised -= 1
            reason = self._why_rejected()
        self.open_questions -= 1
        if not reason:
            return GoalResponse.ACCEPT
        self._log.warning(
            f"Rejected a goal of {self._node.resolve_service_name('~/ask')}: {reason}",
            throttle_duration_sec=_LOG_SECONDS,
        )
        return GoalResponse.REJECT

    def _why_rejected(self) -> str:
        """Returns the reason why no goal can be accepted now, or '' if one can."""
        answerer = self.answerer
        if answerer is None:
            return self._why_not_active()
        if len(self._goals) >= MOST_GOALS:
            return f"busy: {len(self._goals)} goals have ended lately; results are kept for {_RESULT_SECONDS} s"
        return str(answerer.turn_away(self._promised) or "")

    def _on_accepted(self, goal: Any) -> None:
        """Queues the question at once, not in a task that comes later: the next goal must see whether there is room."""
        self.open_questions += 1
        key = bytes(goal.goal_id.uuid)
        self._goals.add(key)
        weakref.finalize(goal, self._goals.discard, key).atexit = False
        stream = _Stream(self._node, goal, lambda: self._on_cancel(goal))
        self._asked[key] = self._ask(goal.request, stream.add)
        forget_images(goal.request)
        goal.execute()

    async def _on_goal(self, goal: Any) -> Any:
        result = Ask.Result()
        key = bytes(goal.goal_id.uuid)
        await self._respond(result, self._asked[key])
        del self._asked[key]
        await self._pace["result"].turn()
        self._close_later()
        if result.success:
            goal.succeed()
        elif goal.is_cancel_requested:
            result.error, result.error_code = "cancelled by the client", ErrorCode.CANCELLED
            goal.canceled()
        else:
            goal.abort()
        return result

    def _on_cancel(self, goal: Any) -> CancelResponse:
        asked = self._asked.get(bytes(goal.goal_id.uuid))
        if isinstance(asked, Job):
            asked.cancel()
        return CancelResponse.ACCEPT

    def _close_later(self) -> None:
        """Counts a goal as open until its result is sent, which rclpy does in a task after the goal's own."""
        executor: Any = self._node.executor

        def close() -> None:
            self.open_questions -= 1

        executor.create_task(lambda: executor.create_task(close))

    # --- both

    def _ask(self, request: Any, on_text: OnText | None = None) -> Job | Failure:
        """Queues the question of a Query request or an Ask goal."""
        answerer = self.answerer
        try:
            if answerer is None:
                raise NotActiveError(self._why_not_active())
            return answerer.submit(request, on_text)
        except Exception as error:
            return failure_of(error, self._log)

    async def _respond(self, response: Any, asked: Job | Failure) -> None:
        """Fills in a Query response or an Ask result when the job has ended."""
        failure = asked if isinstance(asked, Failure) else None
        if isinstance(asked, Job):
            await ended(self._node, asked.future)
            try:
                response.answer = asked.future.result()
                response.success = True
            except Exception as error:
                failure = failure_of(error, self._log)
                if isinstance(error, AnswerCancelledError):
                    now = self._node.get_clock().now().to_msg()
                    response.answer = answer_message(error.answer, error.headers, now)
        if failure is not None:
            response.error_code, response.error = failure


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
