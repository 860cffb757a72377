"""Questions by function calls."""

# ruff: noqa: E402 - what follows a skip cannot be at the top
from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from ros_process import compressed, image
from scripted_pipeline import ScriptedPipeline

from litevlm_ros.action import Ask
from litevlm_ros.config import PipelineConfig, SamplingConfig
from litevlm_ros.errors import BusyError, ConfigError, DeadlineError, ImageError, NoFrameError
from litevlm_ros.node.camera_views import CameraViews
from litevlm_ros.node.cameras import Camera, CameraSource
from litevlm_ros.node.inference import Inference
from litevlm_ros.node.questions import QuestionAnswerer
from litevlm_ros.node.settings import NodeSettings
from litevlm_ros.srv import Query

pytestmark = pytest.mark.ros

SETTINGS = NodeSettings(
    sources=(), max_frame_age=5.0, frame_clock="auto", max_image_pixels=100, caption_period=0.0, caption_prompt="",
    caption_cameras=frozenset(), caption_change_threshold=0.0, caption_max_hold=10.0, overlay_width=320,
    max_queued_questions=4, max_question_chars=20, max_query_images=2,
)  # fmt: skip
DEFAULTS = SamplingConfig(max_new_tokens=33, temperature=0.7, top_k=4, repetition_penalty=1.3)


class AnswererBench:
    """An answerer on a scripted pipeline with two cameras that are not subscribed."""

    def __init__(self, node: Any) -> None:
        self.pipeline = ScriptedPipeline()
        config = PipelineConfig(model_dir="x", sampling=DEFAULTS)
        self.inference = Inference(config, lambda config: self.pipeline, max_queued_questions=2)
        self.cameras = {
            name: Camera(node, CameraSource(name, f"/{name}", False), lambda camera: None) for name in ("front", "back")
        }
        self.published: list[Any] = []
        views = CameraViews(self.cameras, 5.0)
        self.answerer = QuestionAnswerer(SETTINGS, views, self.inference, self.published.append, node.get_clock())

    def ask(self, question: str = "What?", **fields: Any) -> Any:
        return self.answerer.submit(Query.Request(question=question, **fields)).future.result(5)


@pytest.fixture
def asking() -> Iterator[AnswererBench]:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("questions_test", context=context)
    asking = AnswererBench(node)
    yield asking
    assert asking.inference.stop(20)
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def test_an_answer_about_all_cameras_is_returned_and_published(asking: AnswererBench) -> None:
    asking.cameras["front"].receive(image(1, (5, 1)))
    asking.cameras["back"].receive(image(2, (5, 9)))
    answer = asking.ask("  What is there? ")
    assert answer.text == "front=1 back=2 What is there?"
    assert list(answer.cameras) == ["front", "back"]
    assert [stamp.nanosec for stamp in answer.stamps] == [1, 9]
    assert answer.header.stamp.nanosec == 9
    assert asking.published == [answer]


def test_named_cameras_and_the_frame_at_the_time_of_inference(asking: AnswererBench) -> None:
    asking.cameras["back"].receive(image(1))
    asking.pipeline.seconds = 0.1
    running = asking.answerer.submit(Query.Request(question="first", cameras=["back"]))
    waiting = asking.answerer.submit(Query.Request(question="second", cameras=["back"]))
    time.sleep(0.03)
    asking.cameras["back"].receive(image(2))
    assert running.future.result(5).text == "back=1 first"
    assert waiting.future.result(5).text == "back=2 second"


def test_the_pipeline_may_choose_among_all_cameras_but_not_among_named_ones(asking: AnswererBench) -> None:
    for name in ("front", "back"):
        asking.cameras[name].receive(image(1))
    asking.ask("What is behind us?")
    asking.ask("What is behind us?", cameras=["front", "back"])
    asking.ask("What is behind us?", images=[image(1), image(2)])
    assert asking.pipeline.all_views == [False, True, True]


def test_images_that_come_with_the_request(asking: AnswererBench) -> None:
    answer = asking.ask(images=[image(4, (8, 0)), image(5)])
    assert answer.text == "image_0=4 image_1=5 What?"
    assert answer.header.stamp.sec == 8
    assert asking.ask(images=[image(4)], cameras=["mine"]).text == "mine=4 What?"


def test_compressed_images_come_behind_the_others(asking: AnswererBench) -> None:
    answer = asking.ask(images=[image(4)], compressed_images=[compressed(5, (9, 0))])
    assert answer.text == "image_0=4 image_1=5 What?"
    assert [stamp.sec for stamp in answer.stamps] == [0, 9]
    answer = asking.ask(images=[image(4)], compressed_images=[compressed(5)], cameras=["raw", "packed"])
    assert answer.text == "raw=4 packed=5 What?"
    assert asking.ask(compressed_images=[compressed(7)]).text == "image_0=7 What?"


def test_what_an_image_shows_only_when_it_is_decoded(asking: AnswererBench) -> None:
    damaged = compressed(5)
    damaged.data[45:-12] = array("B", bytes(len(damaged.data) - 57))
    with pytest.raises(ImageError, match="image_1: "):
        asking.ask(compressed_images=[compressed(4), damaged])


def test_a_question_that_there_is_no_room_for_is_turned_away(asking: AnswererBench) -> None:
    asking.pipeline.go.clear()
    assert asking.answerer.turn_away() is None
    assert isinstance(asking.answerer.turn_away(promised=2), BusyError)
    running = asking.answerer.submit(Query.Request(question="running", images=[image()]))
    while not asking.pipeline.calls:
        time.sleep(0.005)
    waiting = [asking.answerer.submit(Query.Request(question=q, images=[image()])) for q in "ab"]
    error = asking.answerer.turn_away()
    assert isinstance(error, BusyError)
    assert "max_queued_questions is 2" in str(error)
    asking.pipeline.go.set()
    assert all(job.future.result(5) for job in (running, *waiting))


def test_a_question_about_no_camera_needs_no_image(asking: AnswererBench) -> None:
    before = time.time()
    answer = asking.ask("What is a stop sign?", cameras=["none"])
    assert answer.text.strip() == "What is a stop sign?"
    assert (list(answer.cameras), list(answer.stamps)) == ([], [])
    assert before - 1 <= answer.header.stamp.sec <= time.time()
    assert asking.pipeline.calls[-1][0] == ()
    assert asking.published == [answer]
    with pytest.raises(NoFrameError, match="waiting for an image"):
        asking.ask()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cameras": ["none", "front"]}, "cameras has none, which stands for no camera, beside front"),
        ({"cameras": ["none"], "images": [image()]}, "cameras names an image none, which stands for no image"),
        ({"cameras": ["a", "none"], "images": [image(), image()]}, "give it another name"),
    ],
)
def test_no_camera_stands_alone(asking: AnswererBench, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        asking.ask(**fields)


def test_zeros_stand_for_defaults(asking: AnswererBench) -> None:
    asking.ask(images=[image()])
    asking.ask(images=[image()], max_new_tokens=5, temperature=0.5, top_k=3, top_p=0.25, seed=9)
    first, second = (sampling for _, _, sampling in asking.pipeline.calls)
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
def test_bad_requests_are_explained(
    asking: AnswererBench, fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        asking.ask(**fields)
    assert asking.published == []


def test_more_queries_than_may_wait(asking: AnswererBench) -> None:
    asking.pipeline.seconds = 0.3
    jobs = [asking.answerer.submit(Query.Request(question=str(i), images=[image()])) for i in range(6)]
    errors = [job.future.exception(5) for job in jobs]
    assert sum(isinstance(error, BusyError) for error in errors) >= 3
    assert sum(error is None for error in errors) >= 2


def test_the_end_of_the_node_ends_queries(asking: AnswererBench) -> None:
    asking.pipeline.seconds = 30
    running, waiting = (asking.answerer.submit(Query.Request(question=q, images=[image()])) for q in "ab")
    while not asking.pipeline.calls:
        time.sleep(0.005)
    asking.inference.stop(20)
    for job in (running, waiting):
        with pytest.raises(CancelledError):
            job.future.result(1)
    assert asking.published == []


def test_priority_and_deadline_are_the_jobs(asking: AnswererBench) -> None:
    asking.pipeline.seconds = 0.2
    first = asking.answerer.submit(Query.Request(question="first", images=[image()]))
    while not asking.pipeline.calls:
        time.sleep(0.005)
    hurried = asking.answerer.submit(Ask.Goal(question="hurried", images=[image()], deadline=0.02))
    assert isinstance(hurried.future.exception(5), DeadlineError)
    assert not first.future.done()
    low, high = (
        asking.answerer.submit(Ask.Goal(question=str(priority), images=[image()], priority=priority))
        for priority in (-1, 1)
    )
    for job in (low, high):
        job.future.result(5)
    assert [question for _, question, _ in asking.pipeline.calls] == ["first", "1", "-1"]
    with pytest.raises(ConfigError, match="deadline is -1; allowed: seconds from 0, which stands for none"):
        asking.answerer.submit(Ask.Goal(question="?", images=[image()], deadline=-1.0))
    with pytest.raises(ConfigError, match="deadline is nan"):
        asking.answerer.submit(Ask.Goal(question="?", images=[image()], deadline=float("nan")))
