"""One inference thread that owns the pipeline; questions before captions."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from enum import IntEnum
from typing import Any, Generic, TypeVar

from litevlm_ros.errors import LiteVLMError

P = TypeVar("P")
T = TypeVar("T")


class Priority(IntEnum):
    """What runs first. Within one priority, jobs run in the order they came."""

    QUESTION = 0
    CAPTION = 1


class BusyError(LiteVLMError):
    """Too many jobs of one priority are waiting."""


class InferenceThread(Generic[P]):
    """Loads a pipeline in a thread of its own and runs jobs there, one at a time.

    A job that takes its frames when it is called, not when it is submitted, never works on an old one. What a job
    raises goes to its own future and nowhere else.
    """

    def __init__(self, load: Callable[[], P], capacity: int = 16) -> None:
        """Starts loading at once. At most `capacity` jobs of each priority wait."""
        self.loaded: Future[None] = Future()
        """Done when the pipeline can be used; has the exception if loading failed. Jobs may be submitted before."""
        self._capacity = capacity
        self._waiting: dict[Priority, deque[_Job[P]]] = {priority: deque() for priority in sorted(Priority)}
        self._changed = threading.Condition()
        self._cancel = threading.Event()
        # A daemon: a library call that cannot be interrupted must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, args=(load,), name="inference", daemon=True)
        self._thread.start()

    def submit(self, priority: Priority, job: Callable[[P, threading.Event], T]) -> Future[T]:
        """Queues `job(pipeline, cancel)`; `cancel` is set when the thread is told to stop. Never raises, never blocks.

        The future has BusyError if too many jobs wait, the loading's error if there is no pipeline, and is cancelled
        if the thread stops before the job's turn. Its callbacks run in the inference thread or in the caller's.
        """
        future: Future[T] = Future()
        with self._changed:
            queue = self._waiting[priority]
            error = self.loaded.exception() if self.loaded.done() and not self.loaded.cancelled() else None
            if error is None and len(queue) >= self._capacity:
                error = BusyError(
                    f"busy: {len(queue)} {priority.name.lower()}s are waiting already; ask again later or less often"
                )
            stopped = self._cancel.is_set()
            if error is None and not stopped:
                queue.append(_Job(job, future))
                self._changed.notify()
        if stopped:
            future.cancel()
        elif error is not None:
            future.set_exception(error)
        return future

    def stop(self, timeout: float = 1.0) -> bool:
        """Cancels what waits and what runs. Returns whether the thread ended within `timeout` seconds."""
        with self._changed:
            self._cancel.set()
            self._changed.notify()
        self._drop_waiting(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self, load: Callable[[], P]) -> None:
        try:
            pipeline = load()
        except BaseException as error:
            self.loaded.set_exception(error)
            self._drop_waiting(error)
            return
        self.loaded.set_result(None)
        while (job := self._next()) is not None:
            job.run(pipeline, self._cancel)
            del job  # or the images it holds stay until the next one comes

    def _next(self) -> _Job[P] | None:
        with self._changed:
            while not self._cancel.is_set():
                for queue in self._waiting.values():
                    if queue:
                        return queue.popleft()
                self._changed.wait()
        return None

    def _drop_waiting(self, error: BaseException | None) -> None:
        with self._changed:
            dropped = [job for queue in self._waiting.values() for job in queue]
            for queue in self._waiting.values():
                queue.clear()
        for job in dropped:
            job.drop(error)


class _Job(Generic[P]):
    def __init__(self, function: Callable[[P, threading.Event], Any], future: Future[Any]) -> None:
        self._function = function
        self._future = future

    def run(self, pipeline: P, cancel: threading.Event) -> None:
        if not self._future.set_running_or_notify_cancel():
            return
        try:
            result = self._function(pipeline, cancel)
        except BaseException as error:
            self._future.set_exception(error)
        else:
            self._future.set_result(result)

    def drop(self, error: BaseException | None) -> None:
        if error is None:
            self._future.cancel()
        elif self._future.set_running_or_notify_cancel():
            self._future.set_exception(error)
