# ruff: noqa: E402 - what follows a skip cannot be at the top
from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from ros_process import image
from scripted_pipeline import ScriptedPipeline

from litevlm_ros.config import PipelineConfig, SamplingConfig
from litevlm_ros.errors import BusyError, ConfigError, DeadlineError, EngineError, ImageError, NoFrameError
from litevlm_ros.node.camera_views import CameraViews
from litevlm_ros.node.cameras import Camera, CameraSource
from litevlm_ros.node.inference import InferenceThread
from litevlm_ros.node.inference_jobs import Inference
from litevlm_ros.node.parameters import NodeSettings
from litevlm_ros.node.questions import QueryHandler, sampling_of
from litevlm_ros.srv import Query

pytestmark = pytest.mark.ros

SETTINGS = NodeSettings(
    sources=(), max_frame_age=5.0, frame_clock="auto", max_image_pixels=100, caption_period=0.0, caption_prompt="",
    caption_cameras=frozenset(), caption_change_threshold=0.0, caption_max_hold=10.0, overlay_width=320,
    max_queued_questions=4, max_question_chars=20, max_query_images=2,
)  # fmt: skip
DEFAULTS = SamplingConfig(max_new_tokens=33, temperature=0.7, top_k=4, repetition_penalty=1.3)


class Bench:
    """A query handler on a scripted pipeline with two cameras that are not subscribed."""

    def __init__(self, node: Any) -> None:
        self.pipeline = ScriptedPipeline()
        self.thread: InferenceThread[Any] = InferenceThread(lambda: self.pipeline, max_queued_questions=2)
        self.cameras = {
            name: Camera(node, CameraSource(name, f"/{name}", False), lambda camera: None) for name in ("front", "back")
        }
        self.published: list[Any] = []
        self.logged: list[str] = []
        views, submit = CameraViews(self.cameras, 5.0), Inference(self.thread, PipelineConfig(model_dir="x")).submit
        self.handler = QueryHandler(SETTINGS, DEFAULTS, views, submit, self.published.append, self)

    def error(self, text: str) -> None:
        self.logged.append(text)

    def ask(self, question: str = "What?", **fields: Any) -> Any:
        return self.handler.start(Query.Request(question=question, **fields)).future.result(5)


@pytest.fixture
def bench() -> Iterator[Bench]:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("queries_test", context=context)
    bench = Bench(node)
    yield bench
    assert bench.thread.stop()
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def test_an_answer_about_all_cameras_is_returned_and_published(bench: Bench) -> None:
    bench.cameras["front"]._receive(image(1, (5, 1)))
    bench.cameras["back"]._receive(image(2, (5, 9)))
    answer = bench.ask("  What is there? ")
    assert answer.text == "front=1 back=2 What is there?"
    assert list(answer.cameras) == ["front", "back"]
    assert [stamp.nanosec for stamp in answer.stamps] == [1, 9]
    assert answer.header.stamp.nanosec == 9
    assert bench.published == [answer]


def test_named_cameras_and_the_frame_at_the_time_of_inference(bench: Bench) -> None:
    bench.cameras["back"]._receive(image(1))
    bench.pipeline.seconds = 0.1
    running = bench.handler.start(Query.Request(question="first", cameras=["back"]))
    waiting = bench.handler.start(Query.Request(question="second", cameras=["back"]))
    time.sleep(0.03)
    bench.cameras["back"]._receive(image(2))
    assert running.future.result(5).text == "back=1 first"
    assert waiting.future.result(5).text == "back=2 second"


def test_the_pipeline_may_choose_among_all_cameras_but_not_among_named_ones(bench: Bench) -> None:
    for name in ("front", "back"):
        bench.cameras[name]._receive(image(1))
    bench.ask("What is behind us?")
    bench.ask("What is behind us?", cameras=["front", "back"])
    bench.ask("What is behind us?", images=[image(1), image(2)])
    assert bench.pipeline.all_views == [False, True, True]


def test_images_that_come_with_the_request(bench: Bench) -> None:
    answer = bench.ask(images=[image(4, (8, 0)), image(5)])
    assert answer.text == "image_0=4 image_1=5 What?"
    assert answer.header.stamp.sec == 8
    assert bench.ask(images=[image(4)], cameras=["mine"]).text == "mine=4 What?"


def test_zeros_stand_for_defaults(bench: Bench) -> None:
    bench.ask(images=[image()])
    bench.ask(images=[image()], max_new_tokens=5, temperature=0.5, top_k=3, top_p=0.25, seed=9)
    first, second = (sampling for _, _, sampling in bench.pipeline.calls)
    assert first == SamplingConfig(33, 0.0, 0, 1.0, 1.3, None)
    assert second == SamplingConfig(5, 0.5, 3, 0.25, 1.3, 9)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"question": "  "}, ConfigError, "the question is empty"),
        ({"question": "x" * 21}, ConfigError, "21 characters; max_question_chars allows 20"),
        ({"cameras": ["top"]}, ConfigError, "unknown camera top; known are front, back"),
        ({"cameras": ["front"]}, NoFrameError, "waiting for an image from front .nobody publishes /front"),
        ({}, NoFrameError, "waiting for an image from front .*; back "),
        ({"images": [image()] * 3}, ConfigError, "3 images; max_query_images allows 2"),
        ({"images": [image()] * 2, "cameras": ["a"]}, ConfigError, "2 images but 1 names"),
        ({"images": [image(step=1)]}, ImageError, "image_0: step 1 is too small"),
        ({"images": [image(width=20, height=6)]}, ImageError, "more than the allowed 100 pixels"),
        ({"images": [image()], "temperature": -1.0}, ConfigError, "temperature is -1.0; allowed: numbers from 0"),
        ({"images": [image()], "temperature": float("nan")}, ConfigError, "temperature is nan"),
        ({"images": [image()], "top_p": 1.5}, ConfigError, "top_p is 1.5"),
    ],
)
def test_bad_requests_are_explained(bench: Bench, fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bench.ask(**fields)
    assert bench.published == []


def test_more_queries_than_may_wait(bench: Bench) -> None:
    bench.pipeline.seconds = 0.3
    jobs = [bench.handler.start(Query.Request(question=str(i), images=[image()])) for i in range(6)]
    errors = [job.future.exception(5) for job in jobs]
    assert sum(isinstance(error, BusyError) for error in errors) >= 3
    assert sum(error is None for error in errors) >= 2


def test_the_end_of_the_node_ends_queries(bench: Bench) -> None:
    bench.pipeline.seconds = 30
    running, waiting = (bench.handler.start(Query.Request(question=q, images=[image()])) for q in "ab")
    while not bench.pipeline.calls:
        time.sleep(0.005)
    bench.thread.stop()
    for job in (running, waiting):
        with pytest.raises(CancelledError):
            job.future.result(1)
    assert bench.published == []


def test_errors_in_words(bench: Bench) -> None:
    assert bench.handler.describe(EngineError("no graph")) == "no graph"
    assert bench.handler.describe(CancelledError()) == "the node stopped before the answer was complete"
    assert bench.logged == []
    assert bench.handler.describe(KeyError("x")) == "internal error: KeyError('x'); the node's log has the details"
    assert "KeyError" in bench.logged[0]


def test_priority_and_deadline_are_the_jobs(bench: Bench) -> None:
    bench.pipeline.seconds = 0.2
    first = bench.handler.start(Query.Request(question="first", images=[image()]))
    while not bench.pipeline.calls:
        time.sleep(0.005)
    hurried = bench.handler.start(Query.Request(question="hurried", images=[image()]), deadline=0.02)
    assert isinstance(hurried.future.exception(5), DeadlineError)
    assert not first.future.done()
    low, high = (
        bench.handler.start(Query.Request(question=str(priority), images=[image()]), priority=priority)
        for priority in (-1, 1)
    )
    for job in (low, high):
        job.future.result(5)
    assert [question for _, question, _ in bench.pipeline.calls] == ["first", "1", "-1"]
    with pytest.raises(ConfigError, match="deadline is -1; allowed: seconds from 0, which stands for none"):
        bench.handler.start(Query.Request(question="?", images=[image()]), deadline=-1.0)
    with pytest.raises(ConfigError, match="deadline is nan"):
        bench.handler.start(Query.Request(question="?", images=[image()]), deadline=float("nan"))


def test_sampling_of_an_empty_request() -> None:
    assert sampling_of(Query.Request(), SamplingConfig()) == SamplingConfig()
