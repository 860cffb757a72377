"""One inference thread that owns the pipeline, and the order in which jobs get it."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from enum import IntEnum
from typing import Any, Generic, TypeVar

from litevlm_ros.errors import BusyError, DeadlineError
from litevlm_ros.node.statistics import JobStatistics, Outcome, outcome_of

P = TypeVar("P")
T = TypeVar("T")


class JobKind(IntEnum):
    """Whatever is a question runs before whatever is a caption."""

    QUESTION = 0
    CAPTION = 1


class Job(Generic[T]):
    """One piece of work that waits, runs or has ended."""

    def __init__(self, kind: JobKind, work: Callable[[Any, threading.Event], T], place: tuple[int, int, int]) -> None:
        self.kind = kind
        self.future: Future[T] = Future()
        """Its callbacks run in the inference thread, or in the one that cancels or submits."""
        self.preempted = False
        """Whether it was stopped for a question."""
        self._work: Callable[[Any, threading.Event], T] | None = work
        self._place = place
        self._stop = threading.Event()
        # What it has ended with must not keep the images that it was about.
        self.future.add_done_callback(lambda _: setattr(self, "_work", None))

    def __lt__(self, other: Job[Any]) -> bool:
        """Whether this one comes first."""
        return self._place < other._place

    def cancel(self) -> None:
        """Withdraws it; if it runs already, tells it to stop."""
        if not self.future.cancel():
            self._stop.set()

    def preempt(self) -> None:
        """Tells it to stop for a question."""
        self.preempted = True
        self._stop.set()

    def refuse(self, error: BaseException) -> None:
        """Ends it with an error instead of running it, unless it was withdrawn."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def run(self, pipeline: Any) -> None:
        """Runs it, unless it was withdrawn."""
        work = self._work
        if work is None or not self.future.set_running_or_notify_cancel():
            return
        try:
            result = work(pipeline, self._stop)
        except CancelledError as error:
            self.future.set_exception(error.with_traceback(None))  # whose frames hold images
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class InferenceThread(Generic[P]):
    """Loads a pipeline in a thread of its own and runs jobs there, one at a time.

    Questions come first, among them those of higher priority, then those that came earlier. A question stops a running
    caption; whoever wants the caption has to submit it again. Captions run in the order they came, so that cameras of
    which each has one waiting take turns.

    A job that takes its frames when it is called, not when it is submitted, never works on an old one. What a job
    raises goes to its own future and nowhere else.
    """

    def __init__(
        self, load: Callable[[], P], unload: Callable[[P], None] = lambda _: None, *, max_queued_questions: int = 16
    ) -> None:
        """Starts loading at once. `unload` is called last, in the thread as well. At most so many questions wait."""
        self.loaded: Future[None] = Future()
        """Done when the pipeline can be used; has the exception if loading failed. Jobs may be submitted before."""
        self.max_queued_questions = max_queued_questions
        """May be changed; what waits already stays."""
        self.statistics = {kind: JobStatistics() for kind in JobKind}
        self._waiting: list[Job[Any]] = []  # a heap
        self._numbers = itertools.count()
        self._running: Job[Any] | None = None
        self._stopped = False
        self._changed = threading.Condition()
        # A daemon: a library call that cannot be interrupted must not keep the process from ending.
        self._thread = threading.Thread(target=self._loop, args=(load, unload), name="inference", daemon=True)
        self._thread.start()

    def submit(
        self,
        kind: JobKind,
        work: Callable[[P, threading.Event], T],
        *,
        priority: int = 0,
        deadline: float = math.inf,
    ) -> Job[T]:
        """Queues `work(pipeline, stop)`; it has to raise CancelledError soon after `stop` is set. Never raises, never
        blocks.

        Of questions those with the highest `priority` come first, and one that has not begun `deadline` seconds from
        now has DeadlineError then. The future has BusyError if too many questions wait, the loading's error if there is
        no pipeline, and CancelledError if the thread stops before its turn.
        """
        job = Job(kind, work, (kind, -priority, next(self._numbers)))
        with self._changed:
            error = self._why_not(kind)
            if error is None:
                heapq.heappush(self._waiting, job)
                self.statistics[kind].waiting += 1
                self._preempt_for(kind)
                self._changed.notify()
        job.future.add_done_callback(lambda future: self._ended(job, future))
        if error is not None:
            job.refuse(error)
        elif deadline < math.inf:
            self._expire_after(deadline, job)
        return job

    def stop(self, timeout: float = 1.0) -> bool:
        """Cancels what waits and what runs. Returns whether the thread ended within `timeout` seconds."""
        with self._changed:
            self._stopped = True
            if self._running is not None:
                self._running.cancel()
            self._changed.notify()
        self._drop_waiting(CancelledError())
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _loop(self, load: Callable[[], P], unload: Callable[[P], None]) -> None:
        try:
            pipeline = load()
        except BaseException as error:
            self.loaded.set_exception(error)
            self._drop_waiting(error)
            return
        self.loaded.set_result(None)
        while (job := self._next()) is not None:
            job.run(pipeline)
            del job  # or the images it holds stay until the next one comes
        unload(pipeline)

    def _next(self) -> Job[Any] | None:
        with self._changed:
            self._running = None
            while not self._stopped:
                if self._waiting:
                    self._running = heapq.heappop(self._waiting)
                    self.statistics[self._running.kind].waiting -= 1
                    return self._running
                self._changed.wait()
        return None

    def _why_not(self, kind: JobKind) -> BaseException | None:
        """Why no job of this kind can be queued."""
        if self._stopped:
            return CancelledError()
        if self.loaded.done() and (error := self.loaded.exception()) is not None:
            return error
        waiting = self.statistics[kind].waiting
        if kind is JobKind.QUESTION and waiting >= self.max_queued_questions:
            return BusyError(
                f"busy: {waiting} questions are waiting already (max_queued_questions is {self.max_queued_questions}); "
                "ask again later or less often"
            )
        return None

    def _preempt_for(self, kind: JobKind) -> None:
        """Does not let a question wait for the rest of a caption."""
        if self._running is not None and kind < self._running.kind:
            self._running.preempt()

    def _expire_after(self, seconds: float, job: Job[Any]) -> None:
        def expire() -> None:
            if self._take_back(job):
                job.refuse(
                    DeadlineError(
                        f"the question's deadline of {seconds:g} s passed before its turn came; give it more time or a "
                        "higher priority, or ask less often"
                    )
                )

        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), expire)
        timer.daemon = True
        timer.start()
        job.future.add_done_callback(lambda _: timer.cancel())

    def _take_back(self, job: Job[Any]) -> bool:
        """Takes a job out of the queue. Returns whether it was still there."""
        with self._changed:
            if job not in self._waiting:
                return False
            self._waiting.remove(job)
            heapq.heapify(self._waiting)
            self.statistics[job.kind].waiting -= 1
            return True

    def _drop_waiting(self, error: BaseException) -> None:
        for job in list(self._waiting):
            if self._take_back(job):
                job.refuse(error)

    def _ended(self, job: Job[Any], future: Future[Any]) -> None:
        self._take_back(job)  # if it was withdrawn
        error = CancelledError() if future.cancelled() else future.exception()
        outcome = outcome_of(error)
        if outcome is Outcome.CANCELLED and job.preempted:
            outcome = Outcome.PREEMPTED
        with self._changed:
            self.statistics[job.kind].outcomes[outcome] += 1
