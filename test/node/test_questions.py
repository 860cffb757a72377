"""Questions by function calls, and by clients of a node's service and action."""

# ruff: noqa: E402 - what follows a skip cannot be at the top
from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from action_msgs.msg import GoalStatus
from asking_client import AskingClient, Goal
from lifecycle_bench import Bench
from ros_process import image, wait_for
from scripted_pipeline import ScriptedPipeline

from litevlm_ros.config import PipelineConfig, SamplingConfig
from litevlm_ros.errors import BusyError, ConfigError, DeadlineError, EngineError, ImageError, NoFrameError
from litevlm_ros.msg import Answer, Caption
from litevlm_ros.node import questions
from litevlm_ros.node.camera_views import CameraViews
from litevlm_ros.node.cameras import Camera, CameraSource
from litevlm_ros.node.inference import Inference, JobKind
from litevlm_ros.node.questions import QuestionAnswerer, requested_sampling
from litevlm_ros.node.settings import NodeSettings
from litevlm_ros.node.statistics import Outcome
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
        self.logged: list[str] = []
        views = CameraViews(self.cameras, 5.0)
        self.answerer = QuestionAnswerer(SETTINGS, views, self.inference, self.published.append, node.get_clock(), self)

    def error(self, text: str) -> None:
        self.logged.append(text)

    def ask(self, question: str = "What?", **fields: Any) -> Any:
        return self.answerer.submit(Query.Request(question=question, **fields)).future.result(5)


@pytest.fixture
def asking() -> Iterator[AnswererBench]:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("questions_test", context=context)
    asking = AnswererBench(node)
    yield asking
    assert asking.inference.stop(1)
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
    asking.inference.stop(1)
    for job in (running, waiting):
        with pytest.raises(CancelledError):
            job.future.result(1)
    assert asking.published == []


def test_errors_in_words(asking: AnswererBench) -> None:
    assert asking.answerer.describe(EngineError("no graph")) == "no graph"
    assert asking.answerer.describe(CancelledError()) == "the node stopped before the answer was complete"
    assert asking.answerer.describe(NoFrameError("front has none")) == "front has none"
    assert asking.logged == ["No answer to a question: no graph"], "only what is not the client's fault"
    assert asking.answerer.describe(KeyError("x")) == "internal error: KeyError('x'); the node's log has the details"
    assert "KeyError" in asking.logged[1]


def test_priority_and_deadline_are_the_jobs(asking: AnswererBench) -> None:
    asking.pipeline.seconds = 0.2
    first = asking.answerer.submit(Query.Request(question="first", images=[image()]))
    while not asking.pipeline.calls:
        time.sleep(0.005)
    hurried = asking.answerer.submit(Query.Request(question="hurried", images=[image()]), deadline=0.02)
    assert isinstance(hurried.future.exception(5), DeadlineError)
    assert not first.future.done()
    low, high = (
        asking.answerer.submit(Query.Request(question=str(priority), images=[image()]), priority=priority)
        for priority in (-1, 1)
    )
    for job in (low, high):
        job.future.result(5)
    assert [question for _, question, _ in asking.pipeline.calls] == ["first", "1", "-1"]
    with pytest.raises(ConfigError, match="deadline is -1; allowed: seconds from 0, which stands for none"):
        asking.answerer.submit(Query.Request(question="?", images=[image()]), deadline=-1.0)
    with pytest.raises(ConfigError, match="deadline is nan"):
        asking.answerer.submit(Query.Request(question="?", images=[image()]), deadline=float("nan"))


def test_requested_sampling_an_empty_request() -> None:
    assert requested_sampling(Query.Request(), SamplingConfig()) == SamplingConfig()


# --- the service and the action of a node in this process, and clients that reach them over DDS


@pytest.fixture
def client(bench: Bench) -> Iterator[AskingClient]:
    client = AskingClient(bench.domain)
    yield client
    client.close()


def outcomes(bench: Bench) -> dict[Outcome, int]:
    return dict(bench.node.statistics[JobKind.QUESTION].outcomes)


def test_an_answer_is_streamed_and_complete(bench: Bench, client: AskingClient) -> None:
    bench.pipeline.seconds = 0.5
    bench.start()
    answers = bench.client.listen(Answer, "/litevlm/answer")
    bench.client.wait_for(lambda: bench.node._answers.get_subscription_count() == 1)
    goal = client.send("What is there now?", images=[image(3, (5, 6))], max_new_tokens=9)
    status, result = client.outcome(goal)
    assert (status, result.success, result.error) == (GoalStatus.STATUS_SUCCEEDED, True, "")
    assert result.answer.text == "image_0=3 What is there now?"
    assert result.answer.header.stamp.nanosec == 6
    # The first may be published before DDS knows the listener; rclpy's client drops those that the result overtakes.
    heard = [(feedback.generated_tokens, feedback.piece, feedback.text) for feedback in goal.feedback]
    words = ["image_0=3", " What", " is", " there", " now?"]
    told = [(count, words[count - 1], "".join(words[:count])) for count in range(1, 6)]
    assert len(heard) >= 2
    assert heard in (told[first : first + len(heard)] for first in range(5))
    assert bench.pipeline.calls[0][2].max_new_tokens == 9
    bench.client.wait_for(lambda: answers)
    assert answers[0] == result.answer
    wait_for(lambda: bench.node.questions.open_questions == 0)


def test_a_goal_about_no_camera_is_answered_from_text_alone(bench: Bench, client: AskingClient) -> None:
    bench.start()
    goal = client.send("What is a van?", cameras=["none"])
    status, result = client.outcome(goal)
    assert (status, result.success) == (GoalStatus.STATUS_SUCCEEDED, True)
    assert list(result.answer.cameras) == list(result.answer.stamps) == []
    assert result.answer.header.stamp.sec > 0


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"question": " "}, "the question is empty"),
        ({"question": "?", "cameras": ["front", "none"]}, "cameras has none, which stands for no camera, beside front"),
        ({"question": "?", "cameras": ["top"]}, "unknown camera top; known are front, back"),
        ({"question": "?", "deadline": -1.0}, "deadline is -1; allowed: seconds from 0, which stands for none"),
        ({"question": "?", "images": [image(step=1)]}, "image_0: step 1 is too small"),
    ],
)
def test_bad_goals_are_explained(bench: Bench, client: AskingClient, fields: dict[str, Any], error: str) -> None:
    bench.start()
    status, result = client.outcome(client.send(**fields))
    assert (status, result.success) == (GoalStatus.STATUS_ABORTED, False)
    assert result.error.startswith(error)


def test_goals_of_an_inactive_node_are_told_so(bench: Bench, client: AskingClient) -> None:
    bench.start(autostart=False)
    status, result = client.outcome(client.send("?"))
    assert status == GoalStatus.STATUS_ABORTED
    assert "not configured (yet)" in result.error


def test_a_cancelled_answer_ends_at_the_next_token_and_gives_what_there_was(bench: Bench, client: AskingClient) -> None:
    bench.pipeline.seconds = 30
    bench.start()
    words = [f"w{number}" for number in range(299)]
    goal = client.send(" ".join(words), images=[image(1)])
    client.wait_for(lambda: len(goal.feedback) >= 3)
    cancelled = time.monotonic()
    client.cancel(goal)
    status, result = client.outcome(goal)
    assert time.monotonic() - cancelled < 5, "of 30 seconds"
    assert (status, result.success, result.error) == (GoalStatus.STATUS_CANCELED, False, "cancelled by the client")
    assert result.answer.finish_reason == Answer.CANCELLED
    client.wait_for(lambda: goal.feedback[-1].text == result.answer.text)
    assert outcomes(bench) == {Outcome.CANCELLED: 1}
    bench.pipeline.seconds = 0
    assert bench.client.ask("And now?", images=[image(2)]).success


def held_up(bench: Bench, client: AskingClient) -> Goal:
    """A goal that runs until the pipeline may go on."""
    bench.pipeline.go.clear()
    goal = client.send("first", images=[image()])
    client.wait_for(lambda: (("image_0",), "first") in [call[:2] for call in bench.pipeline.calls])
    return goal


def test_a_waiting_goal_is_cancelled_at_once_and_the_running_one_goes_on(bench: Bench, client: AskingClient) -> None:
    bench.start()
    running = held_up(bench, client)
    waiting = client.send("second", images=[image(2)])
    client.wait_for(lambda: bench.node.statistics[JobKind.QUESTION].waiting == 1)
    client.cancel(waiting)
    assert client.outcome(waiting)[0] == GoalStatus.STATUS_CANCELED
    assert not running.is_done()
    bench.pipeline.go.set()
    assert client.outcome(running)[1].answer.text == "image_0=0 first"
    assert len(bench.pipeline.calls) == 1


def test_a_goal_is_given_up_at_its_deadline(bench: Bench, client: AskingClient) -> None:
    bench.start()
    first = held_up(bench, client)
    status, result = client.outcome(client.send("late", images=[image()], deadline=0.05))
    assert status == GoalStatus.STATUS_ABORTED
    assert result.error.startswith("the question's deadline of 0.05 s passed before its turn came")
    bench.pipeline.go.set()
    assert client.outcome(first)[1].success


def test_priorities_hold_beside_queries_and_captions_of_two_cameras(bench: Bench, client: AskingClient) -> None:
    bench.start(caption_period=0.01)
    publishers = {camera: bench.publish(camera, image(1)) for camera in ("front", "back")}
    captions = bench.client.listen(Caption, "/litevlm/caption")
    held_up(bench, client)
    before = len(bench.pipeline.calls)
    goals, queries = [], []
    for number, priority in enumerate((0, 2, -1, 2, 1)):
        goals.append(client.send(f"{priority} {number}", cameras=["front"], priority=priority))
        queries.append(bench.client.start_query(f"0 {number}, a query", cameras=["back"]))
        wait_for(lambda: bench.node.questions.open_questions == len(goals) + len(queries) + 1)
        for publisher in publishers.values():
            publisher.publish(image(2))
    bench.pipeline.go.set()
    assert all(client.outcome(goal)[1].success for goal in goals)
    assert all(bench.client.result(query).success for query in queries)
    asked = [question for _, question, _ in bench.pipeline.calls[before:] if question != "Describe the scene."]
    assert asked == ["2 1", "2 3", "1 4", "0 0", *(f"0 {n}, a query" for n in range(5)), "-1 2"]
    bench.client.wait_for(lambda: {caption.camera for caption in captions} == {"front", "back"})


def test_more_goals_than_may_wait_are_busy_at_once(bench: Bench, client: AskingClient) -> None:
    bench.start(max_queued_questions=2)
    first = held_up(bench, client)
    goals = [client.send(str(number), images=[image()]) for number in range(1, 6)]
    refused = [client.outcome(goal)[1].error for goal in goals[2:]]
    assert all(error.startswith("busy: 2 questions are waiting already") for error in refused)
    assert not first.is_done()
    bench.pipeline.go.set()
    assert all(client.outcome(goal)[1].success for goal in (first, *goals[:2]))


def test_a_client_that_goes_away_during_its_answer_does_not_hold_up_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "_LISTENER_SECONDS", 0.0)
    bench.pipeline.seconds = 60
    bench.start()
    leaving = AskingClient(bench.domain)
    goal = leaving.send(" ".join(map(str, range(400))), images=[image(1)])
    leaving.wait_for(lambda: len(goal.feedback) >= 2)
    leaving.close()
    wait_for(lambda: outcomes(bench) == {Outcome.CANCELLED: 1})
    bench.pipeline.seconds = 0
    assert bench.client.ask("What?", images=[image(2)]).success
    wait_for(lambda: bench.node.questions.open_questions == 0)


def test_a_finished_goal_keeps_no_images(bench: Bench, client: AskingClient) -> None:
    bench.start()
    for fields in ({}, {"deadline": -1.0}, {"images": [image(1)] * 9}):
        client.outcome(client.send("?", **{"images": [image(1)], **fields}))
    assert [list(goal.request.images) for goal in bench.node.questions._action._goal_handles.values()] == [[]] * 3
    assert bench.node.questions._jobs == {}
