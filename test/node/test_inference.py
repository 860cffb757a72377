from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, wait
from typing import Any

import pytest

from litevlm_ros.errors import BusyError, DeadlineError, EngineError
from litevlm_ros.node.inference import InferenceThread, Job, JobKind
from litevlm_ros.node.statistics import Outcome


class Gate:
    """A job that runs until it is opened or cancelled."""

    def __init__(self) -> None:
        self.running, self.open = threading.Event(), threading.Event()

    def __call__(self, pipeline: Any, stop: threading.Event) -> str:
        self.running.set()
        while not (self.open.wait(0.005) or stop.is_set()):
            pass
        if stop.is_set():
            raise CancelledError
        return "done"


@pytest.fixture
def thread() -> Iterator[InferenceThread[str]]:
    thread = InferenceThread(lambda: "pipeline", max_queued_questions=3)
    yield thread
    assert thread.stop()


def test_jobs_get_the_pipeline_in_one_other_thread(thread: InferenceThread[str]) -> None:
    seen = [thread.submit(JobKind.QUESTION, lambda p, _: (p, threading.get_ident())).future.result(2) for _ in range(3)]
    assert {pipeline for pipeline, _ in seen} == {"pipeline"}
    assert len({ident for _, ident in seen}) == 1
    assert threading.get_ident() not in {ident for _, ident in seen}


def begun(thread: InferenceThread[str], kind: JobKind = JobKind.QUESTION) -> tuple[Gate, Job[str]]:
    """A job that runs until its gate is opened."""
    gate = Gate()
    job = thread.submit(kind, gate)
    assert gate.running.wait(2)
    return gate, job


def test_questions_come_before_captions_and_each_in_order(thread: InferenceThread[str]) -> None:
    (gate, _), order = begun(thread), []
    jobs = [(JobKind.CAPTION, "c1"), (JobKind.QUESTION, "q1"), (JobKind.CAPTION, "c2"), (JobKind.QUESTION, "q2")]
    waiting = [thread.submit(kind, lambda p, _, name=name: order.append(name)) for kind, name in jobs]
    assert [thread.statistics[kind].waiting for kind in JobKind] == [2, 2]
    gate.open.set()
    for job in waiting:
        job.future.result(2)
    assert order == ["q1", "q2", "c1", "c2"]
    assert [thread.statistics[kind].waiting for kind in JobKind] == [0, 0]


def test_questions_of_higher_priority_come_first_and_never_after_captions(thread: InferenceThread[str]) -> None:
    (gate, _), order = begun(thread), []
    caption = thread.submit(JobKind.CAPTION, lambda p, _: order.append(100), priority=100)
    for priority in (-5, 7, 0):
        thread.submit(JobKind.QUESTION, lambda p, _, name=priority: order.append(name), priority=priority)
    gate.open.set()
    caption.future.result(2)
    assert order == [7, 0, -5, 100]


def test_a_full_queue_is_busy_for_questions_only(thread: InferenceThread[str]) -> None:
    gate, _ = begun(thread)
    waiting = [thread.submit(kind, lambda p, _: 1) for kind in JobKind for _ in range(3)]
    with pytest.raises(
        BusyError, match=r"busy: 3 questions are waiting already .max_queued_questions is 3.; ask again"
    ):
        thread.submit(JobKind.QUESTION, lambda p, _: 1).future.result(0)
    waiting[0].cancel()
    waiting[0] = thread.submit(JobKind.QUESTION, lambda p, _: 1)  # in the place of the one withdrawn
    waiting.append(thread.submit(JobKind.CAPTION, lambda p, _: 1))
    thread.max_queued_questions = 4
    waiting.append(thread.submit(JobKind.QUESTION, lambda p, _: 1))
    gate.open.set()
    assert [job.future.result(2) for job in waiting] == [1] * 8
    assert thread.statistics[JobKind.QUESTION].outcomes[Outcome.BUSY] == 1


def test_a_question_stops_a_caption_but_no_question(thread: InferenceThread[str]) -> None:
    _, caption = begun(thread, JobKind.CAPTION)
    gate, question = begun(thread)
    assert isinstance(caption.future.exception(2), CancelledError)
    assert caption.preempted
    urgent = thread.submit(JobKind.QUESTION, lambda p, _: 1, priority=9)
    later = thread.submit(JobKind.CAPTION, lambda p, _: 2)
    time.sleep(0.02)
    assert not question.future.done()
    gate.open.set()
    assert (question.future.result(2), urgent.future.result(2), later.future.result(2)) == ("done", 1, 2)
    assert not question.preempted
    assert thread.statistics[JobKind.CAPTION].outcomes == {Outcome.PREEMPTED: 1, Outcome.DONE: 1}


def test_a_question_is_given_up_at_its_deadline_not_when_its_turn_comes(thread: InferenceThread[str]) -> None:
    gate, _ = begun(thread)
    hurried = thread.submit(JobKind.QUESTION, lambda p, _: 1, deadline=0.05)
    patient = thread.submit(JobKind.QUESTION, lambda p, _: 2, deadline=1e300)
    with pytest.raises(DeadlineError, match=r"the question's deadline of 0.05 s passed before its turn came; give it"):
        hurried.future.result(2)
    assert thread.statistics[JobKind.QUESTION].waiting == 1
    gate.open.set()
    assert patient.future.result(2) == 2
    in_time = thread.submit(JobKind.QUESTION, lambda p, _: time.sleep(0.6) or 3, deadline=0.5)
    assert in_time.future.result(2) == 3, "it had begun by then"


def test_an_exception_fails_its_own_future_only(thread: InferenceThread[str]) -> None:
    def fail(pipeline: str, cancel: threading.Event) -> None:
        raise ValueError("mine")

    def leave(pipeline: str, cancel: threading.Event) -> None:
        raise SystemExit

    with pytest.raises(ValueError, match="mine"):
        thread.submit(JobKind.QUESTION, fail).future.result(2)
    with pytest.raises(SystemExit):
        thread.submit(JobKind.QUESTION, leave).future.result(2)
    assert thread.submit(JobKind.QUESTION, lambda p, c: 3).future.result(2) == 3


def test_a_job_can_be_withdrawn_before_its_turn(thread: InferenceThread[str]) -> None:
    gate, _ = begun(thread)
    ran: list[int] = []
    job = thread.submit(JobKind.QUESTION, lambda p, _: ran.append(1))
    last = thread.submit(JobKind.QUESTION, lambda p, _: None)
    job.cancel()
    assert job.future.cancelled()
    assert thread.statistics[JobKind.QUESTION].waiting == 1
    gate.open.set()
    last.future.result(2)
    assert ran == []


def test_cancelling_a_running_job_stops_this_one_only(thread: InferenceThread[str]) -> None:
    _, running = begun(thread)
    after = thread.submit(JobKind.QUESTION, lambda p, stop: stop.is_set())
    running.cancel()
    assert isinstance(running.future.exception(2), CancelledError)
    assert after.future.result(2) is False
    running.cancel()
    assert thread.statistics[JobKind.QUESTION].outcomes == {Outcome.CANCELLED: 1, Outcome.DONE: 1}


def test_stop_cancels_what_runs_and_what_waits_within_a_second() -> None:
    thread = InferenceThread(lambda: "pipeline")
    _, running = begun(thread)
    waiting = thread.submit(JobKind.QUESTION, lambda p, _: 1)
    started = time.monotonic()
    assert thread.stop()
    assert time.monotonic() - started < 1
    for job in (running, waiting, thread.submit(JobKind.QUESTION, lambda p, _: 1)):
        assert isinstance(job.future.exception(0), CancelledError)
    assert thread.stop()


def test_the_pipeline_is_unloaded_in_its_own_thread() -> None:
    unloaded: list[tuple[str, str]] = []
    thread = InferenceThread(
        lambda: "it", lambda pipeline: unloaded.append((pipeline, threading.current_thread().name))
    )
    assert thread.stop()
    assert unloaded == [("it", "inference")]


def test_stop_does_not_wait_for_what_cannot_be_cancelled() -> None:
    thread = InferenceThread(lambda: "pipeline")
    release, running = threading.Event(), threading.Event()

    def deaf(pipeline: str, cancel: threading.Event) -> None:
        running.set()
        release.wait(5)

    thread.submit(JobKind.QUESTION, deaf)
    assert running.wait(2)
    assert not thread.stop(0.05)
    release.set()
    assert thread.stop()


def test_a_failed_load_fails_every_job() -> None:
    loading = threading.Event()

    def load() -> str:
        loading.wait(5)
        raise EngineError("no graph")

    thread: InferenceThread[str] = InferenceThread(load)
    early = thread.submit(JobKind.QUESTION, lambda p, c: 1)
    assert not thread.loaded.done()
    loading.set()
    for future in (thread.loaded, early.future):
        with pytest.raises(EngineError, match="no graph"):
            future.result(2)
    with pytest.raises(EngineError, match="no graph"):
        thread.submit(JobKind.QUESTION, lambda p, c: 1).future.result(2)
    assert thread.stop()


def test_a_callback_may_submit_and_stop() -> None:
    thread = InferenceThread(lambda: "pipeline")
    done: Future[Any] = Future()

    def again(_: Future[int]) -> None:
        thread.submit(JobKind.QUESTION, lambda p, c: done.set_result(thread.stop()))

    thread.submit(JobKind.QUESTION, lambda p, c: 1).future.add_done_callback(again)
    done.result(2)
    assert thread.stop()


@pytest.mark.parametrize("end", ["done", "cancelled", "expired"])
def test_jobs_that_have_ended_hold_nothing(thread: InferenceThread[str], end: str) -> None:
    class Frame:
        pass

    frame = Frame()
    gone = weakref.ref(frame)

    def work(pipeline: str, stop: threading.Event, frame: Frame | None = frame) -> None:
        if end == "cancelled":
            raise CancelledError

    gc.disable()  # nor does what they held wait for a collection of cycles
    try:
        gate, _ = begun(thread)
        job = thread.submit(JobKind.QUESTION, work, deadline=0.01 if end == "expired" else 10)
        del work, frame
        if end != "expired":
            gate.open.set()
        wait([job.future], 2)
        gate.open.set()
        deadline = time.monotonic() + 2
        while gone() is not None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert gone() is None
    finally:
        gc.enable()


def test_priorities_and_deadlines_under_load() -> None:
    """One question in three is urgent and one in three has a deadline, from four threads at the same time."""
    thread = InferenceThread(lambda: "pipeline", max_queued_questions=1000)
    gate, _ = begun(thread)
    began: list[tuple[int, int]] = []
    jobs: list[tuple[int, float, Job[None]]] = []

    def ask(client: int) -> None:
        for number in range(client, 240, 4):
            priority, deadline = number % 3 == 0, 0.05 if number % 3 == 1 else 60.0

            def work(pipeline: str, stop: threading.Event, priority: int = priority, number: int = number) -> None:
                began.append((priority, number))
                time.sleep(0.0005)

            jobs.append(
                (priority, deadline, thread.submit(JobKind.QUESTION, work, priority=priority, deadline=deadline))
            )

    clients = [threading.Thread(target=ask, args=(client,)) for client in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(10)
    wait([job.future for _, deadline, job in jobs if deadline < 1], 10)
    gate.open.set()
    for _, deadline, job in jobs:
        error = job.future.exception(10)
        assert isinstance(error, DeadlineError) if deadline < 1 else error is None
    assert [priority for priority, _ in began] == [1] * 80 + [0] * 80
    for client in range(4):
        for wanted in (0, 1):
            own = [number for priority, number in began if priority == wanted and number % 4 == client]
            assert own == sorted(own), "questions of one client and priority keep their order"
    outcomes = thread.statistics[JobKind.QUESTION].outcomes
    assert outcomes == {Outcome.DONE: 161, Outcome.EXPIRED: 80}
    assert thread.stop()
