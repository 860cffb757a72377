from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, wait
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from ros_process import slowdown
from scripted_pipeline import ScriptedPipeline

from litevlm_ros.config import PipelineConfig, SamplingConfig
from litevlm_ros.errors import BusyError, DeadlineError, EngineError
from litevlm_ros.node.camera_views import Views
from litevlm_ros.node.inference import Inference, Job, JobKind
from litevlm_ros.node.statistics import Outcome
from litevlm_ros.node.turn import AnswerCancelledError, Turn
from litevlm_ros.types import Answer, FinishReason, View

pytestmark = pytest.mark.ros

CONFIG = PipelineConfig("model")
VIEWS = Views((View("front", np.full((2, 2, 3), 9, np.uint8)),), {}, arrival=0.0, decode_ms=1.5)


class Closable:
    """Stands for a pipeline in tests of the order of jobs."""

    def __init__(self) -> None:
        self.closed_by = ""

    def close(self) -> None:
        self.closed_by = threading.current_thread().name


def start(pipeline: Any = None, max_queued_questions: int = 16) -> Inference:
    return Inference(CONFIG, lambda config: pipeline or Closable(), max_queued_questions=max_queued_questions)


class Gate:
    """A job that runs until it is opened or cancelled."""

    def __init__(self) -> None:
        self.running, self.open = threading.Event(), threading.Event()

    def __call__(self, turn: Turn) -> str:
        self.running.set()
        while not (self.open.wait(0.005) or turn.stopping.is_set()):
            pass
        if turn.stopping.is_set():
            raise CancelledError
        return "done"


@pytest.fixture
def inference() -> Iterator[Inference]:
    inference = start(max_queued_questions=3)
    yield inference
    assert inference.stop(20)


def test_jobs_get_the_pipeline_in_one_other_thread() -> None:
    loaded = Closable()
    inference = start(loaded)
    seen = [
        inference.submit(JobKind.QUESTION, lambda turn: (turn.pipeline, threading.get_ident())).future.result(20)
        for _ in range(3)
    ]
    assert {pipeline for pipeline, _ in seen} == {loaded}
    assert len({ident for _, ident in seen}) == 1
    assert threading.get_ident() not in {ident for _, ident in seen}
    assert inference.stop(20)


def begun(inference: Inference, kind: JobKind = JobKind.QUESTION) -> tuple[Gate, Job]:
    """A job that runs until its gate is opened."""
    gate = Gate()
    job = inference.submit(kind, gate)
    assert gate.running.wait(20)
    return gate, job


def test_questions_come_before_captions_and_each_in_order(inference: Inference) -> None:
    (gate, _), order = begun(inference), []
    jobs = [(JobKind.CAPTION, "c1"), (JobKind.QUESTION, "q1"), (JobKind.CAPTION, "c2"), (JobKind.QUESTION, "q2")]
    waiting = [inference.submit(kind, lambda _, name=name: order.append(name)) for kind, name in jobs]
    assert [inference.statistics[kind].waiting for kind in JobKind] == [2, 2]
    gate.open.set()
    for job in waiting:
        job.future.result(20)
    assert order == ["q1", "q2", "c1", "c2"]
    assert [inference.statistics[kind].waiting for kind in JobKind] == [0, 0]


def test_questions_of_higher_priority_come_first_and_never_after_captions(inference: Inference) -> None:
    (gate, _), order = begun(inference), []
    caption = inference.submit(JobKind.CAPTION, lambda _: order.append(100), priority=100)
    for priority in (-5, 7, 0):
        inference.submit(JobKind.QUESTION, lambda _, name=priority: order.append(name), priority=priority)
    gate.open.set()
    caption.future.result(20)
    assert order == [7, 0, -5, 100]


def test_a_full_queue_is_busy_for_questions_only(inference: Inference) -> None:
    gate, _ = begun(inference)
    waiting = [inference.submit(kind, lambda _: 1) for kind in JobKind for _ in range(3)]
    with pytest.raises(
        BusyError, match=r"busy: 3 questions are waiting already .max_queued_questions is 3.; ask again"
    ):
        inference.submit(JobKind.QUESTION, lambda _: 1).future.result(0)
    waiting[0].cancel()
    waiting[0] = inference.submit(JobKind.QUESTION, lambda _: 1)  # in the place of the one withdrawn
    waiting.append(inference.submit(JobKind.CAPTION, lambda _: 1))
    inference.max_queued_questions = 4
    waiting.append(inference.submit(JobKind.QUESTION, lambda _: 1))
    gate.open.set()
    assert [job.future.result(20) for job in waiting] == [1] * 8
    assert inference.statistics[JobKind.QUESTION].outcomes[Outcome.BUSY] == 1


def test_a_question_stops_a_caption_but_no_question(inference: Inference) -> None:
    _, caption = begun(inference, JobKind.CAPTION)
    gate, question = begun(inference)
    assert isinstance(caption.future.exception(2), CancelledError)
    assert caption.preempted
    urgent = inference.submit(JobKind.QUESTION, lambda _: 1, priority=9)
    later = inference.submit(JobKind.CAPTION, lambda _: 2)
    time.sleep(0.02)
    assert not question.future.done()
    gate.open.set()
    assert (question.future.result(20), urgent.future.result(20), later.future.result(20)) == ("done", 1, 2)
    assert not question.preempted
    assert inference.statistics[JobKind.CAPTION].outcomes == {Outcome.PREEMPTED: 1, Outcome.DONE: 1}


def test_a_question_is_given_up_at_its_deadline_not_when_its_turn_comes(inference: Inference) -> None:
    gate, _ = begun(inference)
    hurried = inference.submit(JobKind.QUESTION, lambda _: 1, deadline=0.05)
    patient = inference.submit(JobKind.QUESTION, lambda _: 2, deadline=1e300)
    with pytest.raises(DeadlineError, match=r"the question's deadline of 0.05 s passed before its turn came; give it"):
        hurried.future.result(20)
    assert inference.statistics[JobKind.QUESTION].waiting == 1
    gate.open.set()
    assert patient.future.result(20) == 2
    in_time = inference.submit(JobKind.QUESTION, lambda _: time.sleep(0.6) or 3, deadline=0.5)
    assert in_time.future.result(20) == 3, "it had begun by then"


def test_an_exception_fails_its_own_future_only(inference: Inference) -> None:
    def fail(turn: Turn) -> None:
        raise ValueError("mine")

    def leave(turn: Turn) -> None:
        raise SystemExit

    with pytest.raises(ValueError, match="mine"):
        inference.submit(JobKind.QUESTION, fail).future.result(20)
    with pytest.raises(SystemExit):
        inference.submit(JobKind.QUESTION, leave).future.result(20)
    assert inference.submit(JobKind.QUESTION, lambda _: 3).future.result(20) == 3


def test_a_job_can_be_withdrawn_before_its_turn(inference: Inference) -> None:
    gate, _ = begun(inference)
    ran: list[int] = []
    job = inference.submit(JobKind.QUESTION, lambda _: ran.append(1))
    last = inference.submit(JobKind.QUESTION, lambda _: None)
    job.cancel()
    assert job.future.cancelled()
    assert inference.statistics[JobKind.QUESTION].waiting == 1
    gate.open.set()
    last.future.result(20)
    assert ran == []


def test_cancelling_a_running_job_stops_this_one_only(inference: Inference) -> None:
    _, running = begun(inference)
    after = inference.submit(JobKind.QUESTION, lambda turn: turn.stopping.is_set())
    running.cancel()
    assert isinstance(running.future.exception(2), CancelledError)
    assert after.future.result(20) is False
    running.cancel()
    assert inference.statistics[JobKind.QUESTION].outcomes == {Outcome.CANCELLED: 1, Outcome.DONE: 1}


def test_stop_cancels_what_runs_and_what_waits_within_a_second() -> None:
    inference = start()
    _, running = begun(inference)
    waiting = inference.submit(JobKind.QUESTION, lambda _: 1)
    ended: list[float] = []
    running.future.add_done_callback(lambda _: ended.append(time.monotonic()))
    started = time.monotonic()
    assert inference.stop(20)
    assert ended[0] - started < slowdown()
    for job in (running, waiting, inference.submit(JobKind.QUESTION, lambda _: 1)):
        assert isinstance(job.future.exception(0), CancelledError)
    assert inference.stop(20)


def test_the_pipeline_is_unloaded_in_its_own_thread() -> None:
    pipeline = Closable()
    assert start(pipeline).stop(20)
    assert pipeline.closed_by == "inference"


def test_stop_does_not_wait_for_what_cannot_be_cancelled() -> None:
    inference = start()
    release, running = threading.Event(), threading.Event()

    def deaf(turn: Turn) -> None:
        running.set()
        release.wait(5)

    inference.submit(JobKind.QUESTION, deaf)
    assert running.wait(20)
    assert not inference.stop(0.05)
    release.set()
    assert inference.stop(20)


def test_a_failed_load_fails_every_job() -> None:
    loading = threading.Event()

    def load(config: PipelineConfig) -> Any:
        loading.wait(5)
        raise EngineError("no graph")

    inference = Inference(CONFIG, load, max_queued_questions=16)
    early = inference.submit(JobKind.QUESTION, lambda _: 1)
    assert not inference.loaded.done()
    loading.set()
    for future in (inference.loaded, early.future):
        with pytest.raises(EngineError, match="no graph"):
            future.result(20)
    with pytest.raises(EngineError, match="no graph"):
        inference.submit(JobKind.QUESTION, lambda _: 1).future.result(20)
    assert inference.stop(20)


def test_a_callback_may_submit_and_stop() -> None:
    inference = start()
    done: Future[Any] = Future()

    def again(_: Future[int]) -> None:
        inference.submit(JobKind.QUESTION, lambda _: done.set_result(inference.stop(20)))

    inference.submit(JobKind.QUESTION, lambda _: 1).future.add_done_callback(again)
    done.result(20)
    assert inference.stop(20)


@pytest.mark.parametrize("end", ["done", "cancelled", "expired"])
def test_jobs_that_have_ended_hold_nothing(inference: Inference, end: str) -> None:
    class Frame:
        pass

    frame = Frame()
    gone = weakref.ref(frame)

    def work(turn: Turn, frame: Frame | None = frame) -> None:
        if end == "cancelled":
            raise CancelledError

    gc.disable()  # nor does what they held wait for a collection of cycles
    try:
        gate, _ = begun(inference)
        job = inference.submit(JobKind.QUESTION, work, deadline=0.01 if end == "expired" else 10)
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
    inference = start(max_queued_questions=1000)
    gate, _ = begun(inference)
    began: list[tuple[int, int]] = []
    jobs: list[tuple[int, float, Job]] = []

    def ask(client: int) -> None:
        for number in range(client, 240, 4):
            priority, deadline = number % 3 == 0, 0.05 if number % 3 == 1 else 60.0

            def work(turn: Turn, priority: int = priority, number: int = number) -> None:
                began.append((priority, number))
                time.sleep(0.0005)

            jobs.append(
                (priority, deadline, inference.submit(JobKind.QUESTION, work, priority=priority, deadline=deadline))
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
    outcomes = inference.statistics[JobKind.QUESTION].outcomes
    assert outcomes == {Outcome.DONE: 161, Outcome.EXPIRED: 80}
    assert inference.stop(20)


# --- answers of a scripted pipeline


@pytest.fixture
def pipeline() -> ScriptedPipeline:
    return ScriptedPipeline()


@pytest.fixture
def scripted(pipeline: ScriptedPipeline) -> Iterator[Inference]:
    scripted = start(pipeline)
    yield scripted
    assert scripted.stop(20)


def test_an_answer_has_the_time_it_waited_and_its_images_took(scripted: Inference, pipeline: ScriptedPipeline) -> None:
    pipeline.seconds = 0.05
    sampling = SamplingConfig(max_new_tokens=3)
    arrived = time.monotonic() - 0.2

    def job(turn: Turn) -> Answer:
        time.sleep(0.03)  # taking and decoding the views
        return turn.answer(VIEWS, "What?", arrived, sampling)

    answer = scripted.submit(JobKind.QUESTION, job).future.result(5)
    assert answer.text == "front=9 What?"
    assert pipeline.calls == [(("front",), "What?", sampling)]
    timings = answer.timings
    assert 200 <= timings.queue < 1000
    assert timings.decode_image == 1.5
    assert (timings.vision, timings.prefill) == (2.0, 3.0)
    assert timings.queue + 80 <= timings.total < timings.queue + 1000


def test_waiting_is_never_negative(scripted: Inference) -> None:
    # A frame may arrive after its job has begun.
    later = time.monotonic() + 5
    assert (
        scripted.submit(JobKind.CAPTION, lambda turn: turn.answer(VIEWS, "?", later)).future.result(5).timings.queue
        == 0
    )


def test_what_the_pipeline_raises_is_the_futures(scripted: Inference, pipeline: ScriptedPipeline) -> None:
    pipeline.error = EngineError("no")
    with pytest.raises(EngineError, match="no"):
        scripted.submit(JobKind.QUESTION, lambda turn: turn.answer(VIEWS, "?", 0.0)).future.result(5)


def test_a_stopped_answer_is_an_error_that_has_what_there_was(pipeline: ScriptedPipeline) -> None:
    pipeline.seconds = 30
    scripted = start(pipeline)
    future = scripted.submit(JobKind.QUESTION, lambda turn: turn.answer(VIEWS, "?", 0.0)).future
    while not pipeline.calls:
        time.sleep(0.005)
    assert scripted.stop(20)
    error = future.exception(1)
    assert isinstance(error, AnswerCancelledError)
    assert error.answer.finish_reason is FinishReason.CANCELLED
    assert scripted.statistics[JobKind.QUESTION].outcomes == {Outcome.CANCELLED: 1}
    assert scripted.statistics[JobKind.QUESTION].generated_tokens == 0


def test_complete_answers_are_in_the_statistics(scripted: Inference) -> None:
    for _ in range(3):
        scripted.submit(JobKind.CAPTION, lambda turn: turn.answer(VIEWS, "?", time.monotonic())).future.result(5)
    statistics = scripted.statistics[JobKind.CAPTION]
    assert statistics.timings["prefill"].percentile(95) == 3.0
    assert statistics.timings["decode_image"].percentile(50) == 1.5
    assert statistics.generated_tokens == 9
    assert len(scripted.statistics[JobKind.QUESTION].timings["total"]) == 0


def test_new_settings_are_the_pipelines_before_the_next_answer(scripted: Inference, pipeline: ScriptedPipeline) -> None:
    scripted.submit(JobKind.QUESTION, lambda turn: turn.answer(VIEWS, "?", 0.0)).future.result(5)
    assert pipeline.config is None
    scripted.config = replace(CONFIG, sampling=SamplingConfig(max_new_tokens=3))
    scripted.submit(JobKind.QUESTION, lambda turn: turn.answer(VIEWS, "?", 0.0)).future.result(5)
    assert pipeline.config is scripted.config
