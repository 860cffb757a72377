"""Transitions beside the executor: whoever asks for one waits for its end, and nobody else does.

rclpy runs a transition in the callback of the service `~/change_state`. While a model is loaded there, or an answer is
waited for, a single-threaded executor would serve nothing: neither `~/get_state` nor questions, parameters and cameras.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode

from litevlm_ros.node.awaiting import ended

_SHUTDOWNS = (
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    Transition.TRANSITION_INACTIVE_SHUTDOWN,
    Transition.TRANSITION_ACTIVE_SHUTDOWN,
)


class Transitions:
    """Runs the transitions of a node, one after the other, in a thread that there is while one runs.

    The service `~/change_state` responds when its transition has ended. A transition that is asked for meanwhile waits
    its turn, as it would for a node whose executor is busy. One that is not possible when its turn comes is refused.
    """

    def __init__(self, node: LifecycleNode, state: Callable[[], str]) -> None:
        """Takes over the service that rclpy has made. `state` returns the label of the node's state."""
        self.open_requests = 0
        """Requests whose response has not been sent yet."""
        self._node = node
        self._state = state
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._thread: threading.Thread | None = None
        self._shutdowns = 0
        self._closed = False
        service: Any = next(service for service in node.services if service.srv_type is ChangeState)
        self._change_state = service.callback
        service.callback = self._on_request
        # The group of before lets in nothing else until a coroutine has ended.
        service.callback_group = ReentrantCallbackGroup()
        service.callback_group.add_entity(service)

    @property
    def in_a_hurry(self) -> bool:
        """True if the transition that runs should not wait for anything long, because the node is to end."""
        return self._closed or self._shutdowns > 0

    def run(self, work: Callable[[], Any]) -> Future[Any]:
        """Has the thread call `work` when the transitions before it have ended. Any thread may ask for it.

        The future has what `work` returns or raises, or CancelledError if it was not called any more.
        """
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                future.set_exception(CancelledError())
                return future
            self._waiting.append((work, future))
            if self._thread is None:
                # A daemon: a library call that cannot be interrupted must not keep the process from ending.
                self._thread = threading.Thread(target=self._loop, name="transitions", daemon=True)
                self._thread.start()
        return future

    def close(self, seconds: float) -> None:
        """Begins no further transition, and waits up to `seconds` for the one that runs."""
        with self._lock:
            self._closed = True
            waiting, thread = list(self._waiting), self._thread
            self._waiting.clear()
        for _, future in waiting:
            future.set_exception(CancelledError())
        if thread is not None and thread is not threading.current_thread():
            thread.join(seconds)

    def _loop(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                work, future = self._waiting.popleft()
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            del work, future  # otherwise they would stay until the next transition

    async def _on_request(self, request: Any, response: Any) -> Any:
        response.success = False
        ends = _is_shutdown(request.transition)
        self.open_requests += 1
        self._shutdowns += ends
        await ended(self._node, self.run(lambda: self._change(request, response)))
        self._shutdowns -= ends
        self.open_requests -= 1
        return response

    def _change(self, request: Any, response: Any) -> None:
        try:
            self._change_state(request, response)
        except (
            Exception
        ) as error:  # rclpy's own for a transition that is not possible; from Kilted on it logs that itself
            response.success = False
            asked = request.transition.label or f"number {request.transition.id}"
            self._node.get_logger().warning(
                f"The transition {asked} was refused: the node is {self._state()} ({type(error).__name__}: {error})"
            )


def _is_shutdown(transition: Any) -> bool:
    return transition.label == "shutdown" if transition.label else transition.id in _SHUTDOWNS
