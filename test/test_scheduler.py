from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from litevlm_ros.errors import EngineError
from litevlm_ros.scheduler import BusyError, InferenceThread, Priority


class Gate:
    """A job that runs until it is opened or cancelled."""

    def __init__(self) -> None:
        self.running, self.open = threading.Event(), threading.Event()

    def __call__(self, pipeline: Any, cancel: threading.Event) -> str:
        self.running.set()
        while not (self.open.wait(0.005) or cancel.is_set()):
            pass
        return "cancelled" if cancel.is_set() else "done"


@pytest.fixture
def thread() -> Iterator[InferenceThread[str]]:
    thread = InferenceThread(lambda: "pipeline", capacity=3)
    yield thread
    assert thread.stop()


def test_jobs_get_the_pipeline_in_one_other_thread(thread: InferenceThread[str]) -> None:
    seen = [thread.submit(Priority.QUESTION, lambda p, _: (p, threading.get_ident())).result(2) for _ in range(3)]
    assert {pipeline for pipeline, _ in seen} == {"pipeline"}
    assert len({ident for _, ident in seen}) == 1
    assert threading.get_ident() not in {ident for _, ident in seen}


def test_questions_come_before_captions_and_each_in_order(thread: InferenceThread[str]) -> None:
    gate, order = Gate(), []
    thread.submit(Priority.CAPTION, gate)
    assert gate.running.wait(2)
    jobs = [(Priority.CAPTION, "c1"), (Priority.QUESTION, "q1"), (Priority.CAPTION, "c2"), (Priority.QUESTION, "q2")]
    futures = [thread.submit(priority, lambda p, c, name=name: order.append(name)) for priority, name in jobs]
    gate.open.set()
    for future in futures:
        future.result(2)
    assert order == ["q1", "q2", "c1", "c2"]


def test_a_full_queue_is_busy_for_its_own_priority_only(thread: InferenceThread[str]) -> None:
    gate = Gate()
    thread.submit(Priority.CAPTION, gate)
    assert gate.running.wait(2)
    waiting = [thread.submit(Priority.CAPTION, lambda p, c: 1) for _ in range(3)]
    with pytest.raises(BusyError, match="busy: 3 captions are waiting already"):
        thread.submit(Priority.CAPTION, lambda p, c: 1).result(2)
    question = thread.submit(Priority.QUESTION, lambda p, c: 2)
    gate.open.set()
    assert question.result(2) == 2
    assert [future.result(2) for future in waiting] == [1, 1, 1]


def test_an_exception_fails_its_own_future_only(thread: InferenceThread[str]) -> None:
    def fail(pipeline: str, cancel: threading.Event) -> None:
        raise ValueError("mine")

    def leave(pipeline: str, cancel: threading.Event) -> None:
        raise SystemExit

    with pytest.raises(ValueError, match="mine"):
        thread.submit(Priority.QUESTION, fail).result(2)
    with pytest.raises(SystemExit):
        thread.submit(Priority.QUESTION, leave).result(2)
    assert thread.submit(Priority.QUESTION, lambda p, c: 3).result(2) == 3


def test_a_job_can_be_withdrawn_before_its_turn(thread: InferenceThread[str]) -> None:
    gate, ran = Gate(), []
    thread.submit(Priority.QUESTION, gate)
    assert gate.running.wait(2)
    future = thread.submit(Priority.QUESTION, lambda p, c: ran.append(1))
    last = thread.submit(Priority.QUESTION, lambda p, c: None)
    assert future.cancel()
    gate.open.set()
    last.result(2)
    assert ran == []


def test_stop_cancels_what_runs_and_what_waits_within_a_second() -> None:
    thread = InferenceThread(lambda: "pipeline")
    gate = Gate()
    running = thread.submit(Priority.QUESTION, gate)
    assert gate.running.wait(2)
    waiting = thread.submit(Priority.QUESTION, lambda p, c: 1)
    started = time.monotonic()
    assert thread.stop()
    assert time.monotonic() - started < 1
    assert running.result(0) == "cancelled"
    with pytest.raises(CancelledError):
        waiting.result(0)
    with pytest.raises(CancelledError):
        thread.submit(Priority.QUESTION, lambda p, c: 1).result(0)
    assert thread.stop()


def test_stop_does_not_wait_for_what_cannot_be_cancelled() -> None:
    thread = InferenceThread(lambda: "pipeline")
    release, running = threading.Event(), threading.Event()

    def deaf(pipeline: str, cancel: threading.Event) -> None:
        running.set()
        release.wait(5)

    thread.submit(Priority.QUESTION, deaf)
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
    early = thread.submit(Priority.QUESTION, lambda p, c: 1)
    assert not thread.loaded.done()
    loading.set()
    for future in (thread.loaded, early):
        with pytest.raises(EngineError, match="no graph"):
            future.result(2)
    with pytest.raises(EngineError, match="no graph"):
        thread.submit(Priority.QUESTION, lambda p, c: 1).result(2)
    assert thread.stop()


def test_a_callback_may_submit_and_stop() -> None:
    thread = InferenceThread(lambda: "pipeline")
    done: Future[Any] = Future()

    def again(_: Future[int]) -> None:
        thread.submit(Priority.QUESTION, lambda p, c: done.set_result(thread.stop()))

    thread.submit(Priority.QUESTION, lambda p, c: 1).add_done_callback(again)
    done.result(2)
    assert thread.stop()


def test_finished_jobs_hold_nothing(thread: InferenceThread[str]) -> None:
    class Frame:
        pass

    frame = Frame()
    gone = weakref.ref(frame)
    thread.submit(Priority.QUESTION, lambda p, c, frame=frame: None).result(2)
    del frame
    deadline = time.monotonic() + 2
    while gone() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.005)
    assert gone() is None
