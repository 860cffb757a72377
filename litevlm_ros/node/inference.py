"""The inference thread: it owns the pipeline and gives it to one job at a time, questions before captions."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from enum import IntEnum
from functools import partial
from typing import Any

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import BusyError, DeadlineError
from litevlm_ros.node.kept_errors import forget_frames
from litevlm_ros.node.process_tuning import release_memory
from litevlm_ros.node.statistics import JobStatistics, Outcome, outcome_of
from litevlm_ros.node.turn import Turn


class JobKind(IntEnum):
    """The kinds of jobs. One of a smaller value runs first and stops a running one of a larger value."""

    QUESTION = 0
    CAPTION = 1


class Job:
    """One caption or question that waits, runs or has ended."""

    def __init__(self, kind: JobKind, work: Callable[[Turn], Any], place: tuple[int, int, int]) -> None:
        """`place` is the job's place in the queue: smaller ones come first."""
        self.kind = kind
        self.future: Future[Any] = Future()
        """Holds what the work returns or raises. Its callbacks run in the inference thread, or in the thread that
        cancels or submits."""
        self.preempted = False
        """True if the job was stopped for a question."""
        self.stopping = threading.Event()
        """Is set when the job has to end soon."""
        self._work: Callable[[Turn], Any] | None = work
        self._place = place
        self.future.add_done_callback(self._forget_work)

    def __lt__(self, other: Job) -> bool:
        """Orders the queue."""
        return self._place < other._place

    def cancel(self) -> None:
        """Withdraws the job if it waits, and tells it to stop if it runs."""
        if not self.future.cancel():
            self.stopping.set()

    def preempt(self) -> None:
        """Tells the running job to stop for a question."""
        self.preempted = True
        self.stopping.set()

    def refuse(self, error: BaseException) -> None:
        """Ends the job with an error instead of running it, unless it was withdrawn."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def run(self, begin: Callable[[Job], Turn]) -> None:
        """Runs the job in the turn that `begin` returns, unless it was withdrawn."""
        work = self._work
        if work is None or not self.future.set_running_or_notify_cancel():
            return
        turn = None
        try:
            turn = begin(self)
            result = work(turn)
        except BaseException as error:
            self.future.set_exception(forget_frames(error))
        else:
            self.future.set_result(result)
        finally:
            if turn is not None:
                turn.pipeline = None

    def _forget_work(self, _: Future[Any]) -> None:
        """Lets go of the images that the work refers to, however long the job itself is kept."""
        self._work = None


class Inference:
    """A pipeline in a thread of its own, which runs one job at a time.

    Questions come first, among them those of higher priority, then those that came earlier. A question stops a running
    caption, which has to be submitted again by its owner. Captions run in the order in which they came, so cameras that
    each have one caption waiting take turns.

    A job that takes its frames when it runs, not when it is submitted, never works on old ones. An exception in a job
    goes to the job's own future and nowhere else.
    """

    def __init__(
        self, config: PipelineConfig, load: Callable[[PipelineConfig], Any], *, max_queued_questions: int
    ) -> None:
        """Starts loading at once, in the thread. At most `max_queued_questions` wait while another one is answered."""
        self.config = config
        """May be replaced by another one that `Pipeline.change` accepts. The job that runs keeps the old one."""
        self.loaded: Future[None] = Future()
        """Is done when the pipeline can be used, or holds the error if loading failed. Jobs may be submitted before."""
        self.max_queued_questions = max_queued_questions
        """May be changed. Questions that wait already stay."""
        self.statistics = {kind: JobStatistics() for kind in JobKind}
        self._config_in_pipeline = config
        self._waiting: list[Job] = []  # a heap
        self._numbers = itertools.count()
        self._running: Job | None = None
        self._stopped = False
        self._changed = threading.Condition()
        # A daemon: a library call that cannot be interrupted must not keep the process from ending.
        self._thread = threading.Thread(target=self._loop, args=(load,), name="inference", daemon=True)
        self._thread.start()

    def submit(
        self, kind: JobKind, work: Callable[[Turn], Any], *, priority: int = 0, deadline: float = math.inf
    ) -> Job:
        """Queues `work`, which has to raise CancelledError soon after its turn's `stopping` is set.

        Never raises and never blocks. Of questions those with the highest `priority` come first. The job's future has
        DeadlineError if a question has not begun `deadline` seconds from now, BusyError if too many questions wait, the
        error of loading if there is no pipeline, and CancelledError if the thread stops before the job's turn.
        """
        job = Job(kind, work, (kind, -priority, next(self._numbers)))
        with self._changed:
            error = self._why_not(kind)
            if error is None:
                heapq.heappush(self._waiting, job)
                self.statistics[kind].waiting += 1
                if self._running is not None and kind < self._running.kind:
                    self._running.preempt()
                self._changed.notify()
        job.future.add_done_callback(partial(self._count_outcome, job))
        if error is not None:
            job.refuse(error)
        elif deadline < math.inf:
            self._expire_after(deadline, job)
        return job

    def turn_away(self, kind: JobKind, *, promised: int = 0) -> BaseException | None:
        """Returns the error that a job submitted now would end with, and counts it; None if there is room for one.

        `promised` places in the queue are kept for others.
        """
        with self._changed:
            error = self._why_not(kind, promised)
            if error is not None:
                self.statistics[kind].end(outcome_of(error), error)
            return error

    def stop(self, timeout: float) -> bool:
        """Cancels the jobs that wait or run. Returns True if the thread ended within `timeout` seconds."""
        with self._changed:
            self._stopped = True
            if self._running is not None:
                self._running.cancel()
            self._changed.notify()
        self._drop_waiting(CancelledError())
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _loop(self, load: Callable[[PipelineConfig], Any]) -> None:
        try:
            pipeline = load(self._config_in_pipeline)
        except BaseException as error:
            self.loaded.set_exception(forget_frames(error))
            self._drop_waiting(error)
        else:
            self.loaded.set_result(None)
            while (job := self._next()) is not None:
                job.run(partial(self._begin, pipeline))
                del job  # otherwise the images that it holds would stay until the next job comes
            pipeline.close()
            del pipeline
        del load
        release_memory()  # here, because nobody may wait for the end of the thread any more

    def _begin(self, pipeline: Any, job: Job) -> Turn:
        """Begins a job's turn with the settings of this moment."""
        turn = Turn(pipeline, job.stopping, self.statistics[job.kind])
        config = self.config
        if self._config_in_pipeline != config:
            pipeline.change(config)
            self._config_in_pipeline = config
        return turn

    def _next(self) -> Job | None:
        with self._changed:
            self._running = None
            while not self._stopped:
                if self._waiting:
                    self._running = heapq.heappop(self._waiting)
                    self.statistics[self._running.kind].waiting -= 1
                    return self._running
                self._changed.wait()
        return None

    def _why_not(self, kind: JobKind, promised: int = 0) -> BaseException | None:
        """Returns the reason why no job of this kind can be queued, or None if one can."""
        if self._stopped:
            return CancelledError()
        if self.loaded.done() and (error := self.loaded.exception()) is not None:
            return error
        waiting = self.statistics[kind].waiting + promised
        if kind is JobKind.QUESTION and waiting >= self.max_queued_questions:
            return BusyError(
                f"busy: {waiting} questions are waiting already (max_queued_questions is {self.max_queued_questions}); "
                "ask again later or less often"
            )
        return None

    def _expire_after(self, seconds: float, job: Job) -> None:
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

    def _take_back(self, job: Job) -> bool:
        """Takes a job out of the queue. Returns False if it was not there any more."""
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

    def _count_outcome(self, job: Job, future: Future[Any]) -> None:
        self._take_back(job)  # a job that was withdrawn is still in the queue
        error = CancelledError() if future.cancelled() else future.exception()
        outcome = outcome_of(error)
        if outcome is Outcome.CANCELLED and job.preempted:
            outcome = Outcome.PREEMPTED
        with self._changed:
            self.statistics[job.kind].end(outcome, error)
