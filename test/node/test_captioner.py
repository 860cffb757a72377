# ruff: noqa: E402 - what follows a skip cannot be at the top
from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from ros_process import image, wait_for
from scripted_pipeline import ScriptedPipeline

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import EngineError
from litevlm_ros.node import captioner as captions
from litevlm_ros.node.camera_views import CameraViews
from litevlm_ros.node.cameras import Camera, CameraSource
from litevlm_ros.node.captioner import Captioner
from litevlm_ros.node.inference import Inference, JobKind
from litevlm_ros.node.settings import NodeSettings
from litevlm_ros.node.statistics import Outcome
from litevlm_ros.types import AnyImage, RawImage

pytestmark = pytest.mark.ros

SETTINGS = NodeSettings(
    sources=(), max_frame_age=5.0, frame_clock="auto", max_image_pixels=100, caption_period=1.0,
    caption_prompt="Describe.", caption_cameras=frozenset({"front", "back"}),
    caption_change_threshold=0.0, caption_max_hold=10.0, overlay_width=320,
    max_queued_questions=4, max_question_chars=20, max_query_images=2,
)  # fmt: skip


class Clock:
    """time's functions at a time that tests set."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Bench:
    """A captioner on a scripted pipeline; frames come by hand."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.pipeline = ScriptedPipeline()
        self.inference = Inference(PipelineConfig("x"), lambda config: self.pipeline, max_queued_questions=16)
        self.published: list[Any] = []
        self.images: list[AnyImage] = []
        self.logged: list[str] = []
        self.cameras: dict[str, Camera] = {}
        self.use(SETTINGS)

    def use(self, settings: NodeSettings, raw_encodings: Collection[str] = ()) -> None:
        views = CameraViews(self.cameras, settings.max_frame_age, raw_encodings)
        self.captioner = captioner = Captioner(settings, views, self.inference, self.publish, self)
        for name in ("front", "back", "other"):
            self.cameras[name] = Camera(self.node, CameraSource(name, f"/{name}", False), captioner.on_frame)

    def publish(self, message: Any, image: AnyImage) -> None:
        self.published.append(message)
        self.images.append(image)

    def error(self, text: str, throttle_duration_sec: float) -> None:
        self.logged.append(text)

    def frame(self, camera: str = "front", value: int = 0) -> None:
        self.cameras[camera].receive(image(value, (1, value)))

    def settle(self) -> None:
        """Waits until nothing is queued or running."""
        self.inference.submit(JobKind.CAPTION, lambda turn: None).future.result(5)


@pytest.fixture
def bench() -> Iterator[Bench]:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("captions_test", context=context)
    bench = Bench(node)
    yield bench
    assert bench.inference.stop(20)
    node.destroy_node()
    rclpy.try_shutdown(context=context)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(captions, "time", clock)
    return clock


def count(bench: Bench, clock: Clock, times: list[float]) -> int:
    """Returns the number of captions that frames at these times lead to when inference is fast."""
    start, before = clock.now, len(bench.published)
    for moment in times:
        clock.now = start + moment
        bench.frame()
        bench.settle()
    return len(bench.published) - before


def test_the_first_frame_is_captioned_at_once(bench: Bench) -> None:
    bench.frame(value=6)
    wait_for(lambda: bench.published)
    caption = bench.published[0]
    assert (caption.camera, caption.text, caption.prompt) == ("front", "front=6 Describe.", "Describe.")
    assert caption.header.stamp.nanosec == 6
    assert caption.timings.total >= 0


def test_a_fast_camera_is_captioned_once_a_period(bench: Bench, clock: Clock) -> None:
    assert 10 <= count(bench, clock, [index / 30 for index in range(300)]) <= 11


def test_frames_at_nearly_the_period_are_all_captioned(bench: Bench, clock: Clock) -> None:
    assert count(bench, clock, [index + (0.03 if index % 2 else -0.03) for index in range(20)]) == 20


def test_a_pause_is_not_made_up_for(bench: Bench, clock: Clock) -> None:
    assert count(bench, clock, [0, 7.6, 7.7, 7.8, 8.4]) == 2


def test_each_camera_has_its_own_period_and_others_have_none(bench: Bench) -> None:
    for camera in ("front", "back", "other", "front"):
        bench.frame(camera)
    bench.settle()
    assert [caption.camera for caption in bench.published] == ["front", "back"]


def test_one_caption_waits_for_each_camera_and_takes_the_newest_frame(bench: Bench) -> None:
    bench.use(replace(SETTINGS, caption_period=0.001))
    bench.pipeline.seconds = 0.1
    bench.frame("front", 1)
    wait_for(lambda: bench.pipeline.calls)
    for value in (2, 3, 4):
        for camera in ("back", "front"):
            bench.frame(camera, value)
            time.sleep(0.002)
    bench.settle()
    assert [caption.text.split()[0] for caption in bench.published] == ["front=1", "back=4", "front=4"]


def gated(bench: Bench, clock: Clock) -> Callable[[float, int], int]:
    """Shows a frame of some shade at some time and tells how many captions there are then."""
    bench.use(replace(SETTINGS, caption_change_threshold=12.0))
    start = clock.now

    def show(moment: float, shade: int) -> int:
        clock.now = start + moment
        bench.frame(value=shade)
        bench.settle()
        return len(bench.published)

    return show


def test_unchanged_views_are_left_out_and_counted(bench: Bench, clock: Clock) -> None:
    show = gated(bench, clock)
    assert [show(0, 50), show(1, 50), show(2, 51), show(3, 90), show(4, 90), show(5, 50)] == [1, 1, 1, 2, 2, 3]
    assert bench.cameras["front"].counters.unchanged == 3
    assert bench.cameras["back"].counters.unchanged == 0
    assert "3 captions of an unchanged view left out" in bench.cameras["front"].counters.summary()


def test_frames_stay_raw_unless_they_are_compared(bench: Bench, clock: Clock) -> None:
    for threshold, kind in ((0.0, RawImage), (12.0, np.ndarray)):
        bench.use(replace(SETTINGS, caption_change_threshold=threshold), {"mono8"})
        clock.now += 100
        bench.frame(value=70)
        bench.settle()
        assert bench.published[-1].text == "front=70 Describe."
        assert isinstance(bench.images[-1], kind)
    assert len(bench.images) == 2


def test_small_changes_add_up(bench: Bench, clock: Clock) -> None:
    show = gated(bench, clock)
    assert [show(moment, 50 + moment) for moment in range(8)] == [1, 1, 1, 2, 2, 2, 3, 3]


def test_an_unchanged_view_is_captioned_again_after_a_while(bench: Bench, clock: Clock) -> None:
    show = gated(bench, clock)
    assert [show(moment, 50) for moment in (0, 4, 9, 10, 14, 19, 20)] == [1, 1, 1, 2, 2, 2, 3]


def test_a_failed_caption_is_made_up_for(bench: Bench, clock: Clock) -> None:
    show = gated(bench, clock)
    bench.pipeline.error = EngineError("no graph")
    assert show(0, 50) == 0
    bench.pipeline.error = None
    assert show(1, 50) == 1


def test_without_a_threshold_every_view_is_captioned(bench: Bench, clock: Clock) -> None:
    assert count(bench, clock, [0, 1, 2, 3]) == 4
    assert "unchanged" not in bench.cameras["front"].counters.summary()


def test_a_period_of_0_means_none(bench: Bench) -> None:
    bench.use(replace(SETTINGS, caption_period=0.0))
    bench.frame()
    bench.settle()
    assert bench.published == []


def test_failures_are_logged_and_the_next_caption_follows(bench: Bench) -> None:
    bench.use(replace(SETTINGS, caption_period=0.001))
    for error, text in ((EngineError("no graph"), "no graph"), (KeyError("x"), "internal error: KeyError('x')")):
        bench.pipeline.error = error
        bench.frame()
        bench.settle()
        time.sleep(0.005)
        assert bench.logged[-1] == f"No caption of camera front: {text}"
    bench.pipeline.error = None
    bench.frame()
    bench.settle()
    assert len(bench.published) == 1


def test_a_frame_that_grew_old_is_left_out_in_silence(bench: Bench) -> None:
    bench.use(replace(SETTINGS, max_frame_age=0.3))
    bench.pipeline.seconds = 0.5
    bench.frame("front")
    bench.frame("back")
    bench.settle()
    assert [caption.camera for caption in bench.published] == ["front"]
    assert bench.logged == []


def test_a_stopped_caption_is_done_again_on_the_newest_frame(bench: Bench) -> None:
    bench.use(replace(SETTINGS, caption_period=60.0))
    bench.pipeline.seconds = 10
    bench.frame(value=1)
    wait_for(lambda: bench.pipeline.calls)
    bench.cameras["front"]._newest = None
    bench.frame(value=2)  # not due
    answer = bench.inference.submit(JobKind.QUESTION, lambda turn: setattr(turn.pipeline, "seconds", 0))
    answer.future.result(5)
    wait_for(lambda: bench.published)
    bench.settle()
    assert [caption.text for caption in bench.published] == ["front=2 Describe."]
    assert bench.logged == []
    outcomes = bench.inference.statistics[JobKind.CAPTION].outcomes
    assert (outcomes[Outcome.PREEMPTED], outcomes[Outcome.DONE]) == (1, 2)


def test_cameras_take_turns_under_load_with_questions_between(bench: Bench) -> None:
    """A camera of 5 Hz beside one of 100 Hz, captions slower than both ask for, and a question every 35 ms."""
    bench.use(replace(SETTINGS, caption_period=0.001))
    bench.pipeline.seconds = 0.01
    bench.frame("back")
    for tick in range(150):
        bench.frame("front", tick)
        if tick % 20 == 0:
            bench.frame("back", tick)
        if tick % 7 == 0:
            bench.inference.submit(JobKind.QUESTION, lambda turn: time.sleep(0.005))
        time.sleep(0.005)
    assert bench.inference.statistics[JobKind.CAPTION].waiting <= 2, "one for each camera"
    bench.settle()
    told = [caption.camera for caption in bench.published]
    assert told.count("back") >= 6
    assert told.count("front") > told.count("back")


def test_settings_may_change_between_captions(bench: Bench, clock: Clock) -> None:
    bench.frame(value=1)
    bench.settle()
    bench.captioner.settings = replace(SETTINGS, caption_period=100.0, caption_prompt="Go.")
    assert count(bench, clock, [2, 50]) == 0
    bench.captioner.settings = replace(SETTINGS, caption_period=10.0, caption_prompt="Go.")
    assert count(bench, clock, [0]) == 1
    assert bench.published[-1].prompt == "Go."
    bench.captioner.settings = replace(SETTINGS, caption_cameras=frozenset({"back"}))
    assert count(bench, clock, [200]) == 0
