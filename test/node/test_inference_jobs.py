from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from scripted_pipeline import ScriptedPipeline

from litevlm_ros.config import PipelineConfig, SamplingConfig
from litevlm_ros.errors import EngineError
from litevlm_ros.node.camera_views import Views
from litevlm_ros.node.inference import InferenceThread, JobKind
from litevlm_ros.node.inference_jobs import AnswerCancelledError, Ask, Inference
from litevlm_ros.node.statistics import Outcome
from litevlm_ros.types import Answer, FinishReason, View

pytestmark = pytest.mark.ros

CONFIG = PipelineConfig("model")
VIEWS = Views((View("front", np.full((2, 2, 3), 9, np.uint8)),), {}, arrival=0.0, decode_ms=1.5)


@pytest.fixture
def pipeline() -> ScriptedPipeline:
    return ScriptedPipeline()


@pytest.fixture
def thread(pipeline: ScriptedPipeline) -> Iterator[InferenceThread[ScriptedPipeline]]:
    thread = InferenceThread(lambda: pipeline)
    yield thread
    assert thread.stop()


def test_an_answer_has_the_time_it_waited_and_its_images_took(
    thread: InferenceThread[ScriptedPipeline], pipeline: ScriptedPipeline
) -> None:
    pipeline.seconds = 0.05
    sampling = SamplingConfig(max_new_tokens=3)
    arrived = time.monotonic() - 0.2

    def job(ask: Ask) -> Answer:
        time.sleep(0.03)  # taking and decoding the views
        return ask(VIEWS, "What?", arrived, sampling)

    answer = Inference(thread, CONFIG).submit(JobKind.QUESTION, job).future.result(5)
    assert answer.text == "front=9 What?"
    assert pipeline.calls == [(("front",), "What?", sampling)]
    timings = answer.timings
    assert 200 <= timings.queue < 1000
    assert timings.decode_image == 1.5
    assert (timings.vision, timings.prefill) == (2.0, 3.0)
    assert timings.queue + 80 <= timings.total < timings.queue + 1000


def test_waiting_is_never_negative(thread: InferenceThread[ScriptedPipeline]) -> None:
    # A frame may arrive after its job has begun.
    later = time.monotonic() + 5
    assert (
        Inference(thread, CONFIG)
        .submit(JobKind.CAPTION, lambda ask: ask(VIEWS, "?", later))
        .future.result(5)
        .timings.queue
        == 0
    )


def test_what_the_pipeline_raises_is_the_futures(
    thread: InferenceThread[ScriptedPipeline], pipeline: ScriptedPipeline
) -> None:
    pipeline.error = EngineError("no")
    with pytest.raises(EngineError, match="no"):
        Inference(thread, CONFIG).submit(JobKind.QUESTION, lambda ask: ask(VIEWS, "?", 0.0)).future.result(5)


def test_a_stopped_answer_is_an_error_that_has_what_there_was(pipeline: ScriptedPipeline) -> None:
    pipeline.seconds = 30
    thread = InferenceThread(lambda: pipeline)
    future = Inference(thread, CONFIG).submit(JobKind.QUESTION, lambda ask: ask(VIEWS, "?", 0.0)).future
    while not pipeline.calls:
        time.sleep(0.005)
    assert thread.stop()
    error = future.exception(1)
    assert isinstance(error, AnswerCancelledError)
    assert error.answer.finish_reason is FinishReason.CANCELLED
    assert thread.statistics[JobKind.QUESTION].outcomes == {Outcome.CANCELLED: 1}
    assert thread.statistics[JobKind.QUESTION].generated_tokens == 0


def test_complete_answers_are_in_the_statistics(thread: InferenceThread[ScriptedPipeline]) -> None:
    for _ in range(3):
        Inference(thread, CONFIG).submit(JobKind.CAPTION, lambda ask: ask(VIEWS, "?", time.monotonic())).future.result(
            5
        )
    statistics = thread.statistics[JobKind.CAPTION]
    assert statistics.timings["prefill"].percentile(95) == 3.0
    assert statistics.timings["decode_image"].percentile(50) == 1.5
    assert statistics.generated_tokens == 9
    assert len(thread.statistics[JobKind.QUESTION].timings["total"]) == 0


def test_new_settings_are_the_pipelines_before_the_next_answer(
    thread: InferenceThread[ScriptedPipeline], pipeline: ScriptedPipeline
) -> None:
    inference = Inference(thread, CONFIG)
    inference.submit(JobKind.QUESTION, lambda ask: ask(VIEWS, "?", 0.0)).future.result(5)
    assert pipeline.config is None
    inference.config = replace(CONFIG, sampling=SamplingConfig(max_new_tokens=3))
    inference.submit(JobKind.QUESTION, lambda ask: ask(VIEWS, "?", 0.0)).future.result(5)
    assert pipeline.config is inference.config
