"""The node in this process, on a scripted pipeline, and a client that reaches it over DDS."""

# ruff: noqa: E402 - what follows a skip cannot be at the top
from __future__ import annotations

import threading
import time
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from lifecycle_bench import Bench
from rclpy.qos import qos_profile_sensor_data
from ros_process import compressed, image, wait_for
from sensor_msgs.msg import Image
from std_msgs.msg import String

from litevlm_ros.errors import EngineError
from litevlm_ros.msg import Answer, Caption
from litevlm_ros.node.model_holder import INFERENCE_STOP_SECONDS

pytestmark = pytest.mark.ros


def test_it_starts_by_itself_and_says_what_it_waits_for(bench: Bench) -> None:
    bench.start()
    assert bench.client.state() == "active"
    response = bench.client.ask("What?")
    assert not response.success
    assert response.error.startswith("waiting for an image from front (nobody publishes /front/image_raw")
    assert "); back (nobody publishes /back/image_raw" in response.error
    assert response.answer == Answer()


def test_captions_and_answers(bench: Bench) -> None:
    bench.start(caption_period=0.01, caption_prompt="Describe.", caption_cameras=["front"])
    client = bench.client
    captions, texts = client.listen(Caption, "/litevlm/caption"), client.listen(String, "/litevlm/caption_text")
    answers = client.listen(Answer, "/litevlm/answer")
    client.wait_for(lambda: bench.node._captions.get_subscription_count() == 1)
    client.wait_for(lambda: bench.node._caption_texts.get_subscription_count() == 1)
    client.wait_for(lambda: bench.node._answers.get_subscription_count() == 1)
    bench.publish("front", image(7, (3, 4)))
    client.wait_for(lambda: captions and texts)
    assert (captions[0].camera, captions[0].text) == ("front", "front=7 Describe.")
    assert (captions[0].header.stamp.sec, captions[0].header.stamp.nanosec) == (3, 4)
    assert texts[0].data == "front: front=7 Describe."
    response = client.ask("What?", max_new_tokens=5)
    assert (response.success, response.error, response.answer.text) == (True, "", "front=7 What?")
    assert bench.pipeline.calls[-1][2].max_new_tokens == 5
    client.wait_for(lambda: answers)
    assert answers[0] == response.answer


def test_a_compressed_camera_beside_a_raw_one(bench: Bench) -> None:
    bench.start(camera_topics=["/a", "/b/compressed"])
    bench.publish("front", image(1))
    bench.publish("back", compressed(2))
    assert bench.client.ask("What?").answer.text == "front=1 back=2 What?"


def test_queries_run_beside_slow_captions_and_callbacks_never_wait(bench: Bench) -> None:
    bench.pipeline.seconds = 1.5
    bench.start(caption_period=0.01)
    publisher = bench.publish("front", image(1))
    wait_for(lambda: bench.pipeline.calls)
    counters = bench.node.cameras["front"].counters
    started = time.monotonic()
    assert bench.client.state() == "active"
    for value in (2, 3, 4, 5, 6):
        before = counters.received
        publisher.publish(image(value))
        wait_for(lambda before=before: counters.received > before)
    assert time.monotonic() - started < 1, "a callback waited for inference"
    # Before the caption of frame 6, which waits too.
    assert bench.client.ask("What?", cameras=["front"]).answer.text == "front=6 What?"
    assert [question for _, question, _ in bench.pipeline.calls[:2]] == ["Describe the scene.", "What?"]


def test_a_question_does_not_wait_for_the_rest_of_a_caption(bench: Bench) -> None:
    bench.pipeline.go.clear()  # so the caption would run forever
    bench.start(caption_period=60.0)
    bench.publish("front", image(1))
    wait_for(lambda: bench.pipeline.calls)
    asked = bench.client.start_query("What?", images=[image(2)])
    bench.client.wait_for(lambda: len(bench.pipeline.calls) == 2)
    bench.pipeline.go.set()
    assert bench.client.result(asked).answer.text == "image_0=2 What?"
    wait_for(lambda: len(bench.pipeline.calls) == 3)
    assert [question for _, question, _ in bench.pipeline.calls] == [
        "Describe the scene.", "What?", "Describe the scene.",
    ]  # fmt: skip


def test_several_clients_are_answered_each(bench: Bench) -> None:
    bench.pipeline.seconds = 0.05
    bench.start()
    futures = [bench.client.start_query(str(i), images=[image(i)]) for i in range(8)]
    texts = [bench.client.result(future).answer.text for future in futures]
    assert texts == [f"image_0={i} {i}" for i in range(8)]


def test_a_query_while_the_model_loads_is_told_so(bench: Bench) -> None:
    released = threading.Event()
    bench.load = lambda config: released.wait(20) and bench.pipeline
    starting = threading.Thread(target=bench.start, daemon=True)
    starting.start()
    wait_for(lambda: hasattr(bench, "node") and bench.node.holds_model)
    assert bench.client.ask("What?").error == "/litevlm is loading the model; ask again in a moment"
    assert bench.client.state() == "configuring"
    released.set()
    starting.join(5)
    assert bench.client.state() == "active"


def test_transitions(bench: Bench) -> None:
    bench.start(autostart=False)
    client = bench.client
    assert client.state() == "unconfigured"
    assert (
        "not configured (yet); where autostart is false: ros2 lifecycle set /litevlm configure" in client.ask("?").error
    )
    assert client.change_state("configure")
    assert client.ask("?").error == "/litevlm is inactive; to activate it: ros2 lifecycle set /litevlm activate"
    assert bench.node.count_subscribers("/front/image_raw") == 0
    for _ in range(2):
        assert client.change_state("activate")
        assert client.ask("?", images=[image(1)]).success
        assert bench.node.count_subscribers("/front/image_raw") == 1
        assert client.change_state("deactivate")
        assert bench.node.count_subscribers("/front/image_raw") == 0
    assert client.change_state("cleanup")
    assert client.state() == "unconfigured"
    assert bench.node.count_publishers("/litevlm/caption") == 0
    assert not any(thread.name == "inference" for thread in threading.enumerate())
    assert client.change_state("configure")
    assert client.change_state("activate")
    assert client.ask("?", images=[image(1)]).success
    assert client.change_state("shutdown")
    assert client.state() == "finalized"
    assert client.ask("?").error == "/litevlm is shutting down"


def test_cleanup_waits_for_a_model_that_cannot_be_interrupted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    began = threading.Event()

    def deaf(*arguments: Any, **settings: Any) -> Any:
        began.set()
        time.sleep(INFERENCE_STOP_SECONDS + 0.3)
        raise EngineError("at last")

    monkeypatch.setattr(bench.pipeline, "generate", deaf)
    bench.start()
    asked = bench.client.start_query("?", images=[image(1)])
    bench.client.wait_for(began.is_set)
    assert bench.client.change_state("deactivate")
    assert bench.client.change_state("cleanup")
    assert bench.pipeline.closed
    assert bench.client.result(asked).error == "at last"


def test_a_query_that_deactivation_overtakes(bench: Bench) -> None:
    bench.pipeline.seconds = 0.5
    bench.start()
    bench.publish("front", image(1))
    running = bench.client.start_query("first", cameras=["front"])
    waiting = bench.client.start_query("second", cameras=["front"])
    bench.client.wait_for(lambda: bench.node.questions.open_questions == 2)
    assert bench.client.change_state("deactivate")
    assert bench.client.result(running).answer.text == "front=1 first"
    assert bench.client.result(waiting).error == (
        "waiting for an image from front (the node has stopped listening to /front/image_raw)"
    )


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (EngineError("no graph in /x; run export"), "no graph in /x; run export"),
        (MemoryError("8 GB"), "internal error: MemoryError('8 GB')"),
    ],
)
def test_a_model_that_does_not_load(bench: Bench, error: Exception, told: str) -> None:
    def load(config: Any) -> Any:
        raise error

    bench.load = load
    bench.start()
    assert bench.client.state() == "unconfigured"
    assert bench.client.ask("?").error == f"/litevlm could not be configured: {told}"
    bench.load = lambda config: bench.pipeline
    assert bench.client.change_state("configure")
    assert bench.client.change_state("activate")


def test_an_error_in_the_pipeline_is_the_queries_own(bench: Bench) -> None:
    bench.start()
    bench.pipeline.error = KeyError("x")
    assert bench.client.ask("?", images=[image()]).error.startswith("internal error: KeyError('x')")
    bench.pipeline.error = None
    assert bench.client.ask("?", images=[image()]).success


class Said:
    """The lines that the node has logged."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self._text = ""

    def lines(self) -> list[str]:
        self._text += self._capfd.readouterr().err
        return [line.partition("]: ")[2] for line in self._text.splitlines()]

    def wait_for(self, text: str) -> None:
        wait_for(lambda: any(text in line for line in self.lines()))


def test_cameras_that_come_go_and_do_not_fit_are_said_once_each(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("litevlm_ros.node.camera_watch.PERIOD", 0.05)
    monkeypatch.setattr("litevlm_ros.node.camera_watch.PATIENCE", 0.3)
    said = Said(capfd)
    bench.start(cameras=["front"], image_reliability=["reliable"], max_frame_age=0.3)
    said.wait_for("Camera front brings no images: nobody publishes /front/image_raw")
    unfit = bench.client.node.create_publisher(Image, "/front/image_raw", qos_profile_sensor_data)
    said.wait_for("this node requests reliable, volatile; set image_reliability to best_effort")
    bench.client.node.destroy_publisher(unfit)
    bench.publish("front", image(1))
    said.wait_for("Camera front: images arrive on /front/image_raw")
    said.wait_for("s old, max_frame_age is 0.3 s")
    lines = [line for line in said.lines() if line.startswith("Camera front")]
    assert len(lines) == len(set(lines)), lines


def test_a_wrong_override_of_qos_is_told_by_name(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    bench.start(cameras=["front"], **{"qos_overrides./front/image_raw.subscription.reliability": "relyable"})
    assert bench.client.state() == "unconfigured"
    Said(capfd).wait_for("Not ready: parameter qos_overrides./front/image_raw.subscription.reliability is 'relyable'")
    assert bench.node.cameras == {}
