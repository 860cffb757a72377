"""The action in this process, on a scripted pipeline, and clients that reach it over DDS."""

# ruff: noqa: E402 - what follows a skip cannot be at the top
from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.action", reason="needs the built package")

from action_msgs.msg import GoalStatus
from asking_client import AskingClient, Goal
from lifecycle_bench import Bench
from ros_process import image, wait_for

from litevlm_ros.msg import Answer, Caption
from litevlm_ros.node import question_servers
from litevlm_ros.node.inference import JobKind
from litevlm_ros.node.statistics import Outcome

pytestmark = pytest.mark.ros


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


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
    wait_for(lambda: not bench.node.questions.has_open_questions)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"question": " "}, "the question is empty"),
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
        wait_for(lambda: bench.node.questions._open == len(goals) + len(queries) + 1)
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
    monkeypatch.setattr(question_servers, "_LISTENER_SECONDS", 0.0)
    bench.pipeline.seconds = 60
    bench.start()
    leaving = AskingClient(bench.domain)
    goal = leaving.send(" ".join(map(str, range(400))), images=[image(1)])
    leaving.wait_for(lambda: len(goal.feedback) >= 2)
    leaving.close()
    wait_for(lambda: outcomes(bench) == {Outcome.CANCELLED: 1})
    bench.pipeline.seconds = 0
    assert bench.client.ask("What?", images=[image(2)]).success
    wait_for(lambda: not bench.node.questions.has_open_questions)


def test_a_finished_goal_keeps_no_images(bench: Bench, client: AskingClient) -> None:
    bench.start()
    for fields in ({}, {"deadline": -1.0}, {"images": [image(1)] * 9}):
        client.outcome(client.send("?", **{"images": [image(1)], **fields}))
    assert [list(goal.request.images) for goal in bench.node.questions._ask._goal_handles.values()] == [[]] * 3
    assert bench.node.questions._goals == {}
