"""Clients that ask nonsense, too much, or go away: each gets its own answer or a reason, and harms nobody else."""

from __future__ import annotations

import array
import signal
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from rclpy.action.client import ActionClient
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from resident_memory import resident
from robot import Robot
from ros_process import image, wait_for

from litevlm_ros.action import Ask
from litevlm_ros.srv import Query

pytestmark = pytest.mark.ros

HUGE = 2**32 - 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"question": "why " * 1_000_000}, "has 3999999 characters; max_question_chars allows 2000"),
        ({"question": " \t\r\n" * 100_000}, "the question is empty"),
        ({"question": "?", "temperature": float("nan")}, "temperature is nan"),
        ({"question": "?", "top_p": -1.0}, "top_p is -1"),
        ({"question": "?", "images": 1000}, "the query has 1000 images; max_query_images allows 8"),
        ({"question": "?", "images": 2, "cameras": ["a"] * 2}, "two images have the same name"),
        ({"question": "?", "cameras": ["nowhere"] * 10_000}, "unknown camera nowhere; known are front"),
        ({"question": "\x1b[2J\nERROR?", "cameras": ["nowhere"]}, "unknown camera"),
        ({"question": "?", "cameras": ["\n\x1b[31mred" * 500]}, "unknown camera"),
        ({"question": "?", "images": {"width": HUGE, "height": HUGE, "step": HUGE}}, "more than the allowed"),
        ({"question": "?", "images": {"width": 0}}, "no pixels"),
        ({"question": "?", "images": {"height": 7}}, "data is too short"),
        ({"question": "?", "images": {"encoding": "\x00\u2603" * 9}}, "unknown encoding"),
    ],
)
def test_malformed_and_huge_requests_are_explained(bench_robot: Robot, fields: dict[str, Any], reason: str) -> None:
    images = fields.pop("images", None)
    if images is not None:
        fields["images"] = [image(**images)] if isinstance(images, dict) else [image(1)] * images
    elif "cameras" not in fields:
        fields["images"] = [image(1)]
    response = bench_robot.client.ask(**fields)
    assert not response.success
    assert reason in response.error
    assert len(response.error) < 2000
    assert response.error.isprintable()
    assert bench_robot.client.ask("still there?", images=[image(3)]).answer.text == "image_0=3 still there?"


@pytest.fixture(scope="module")
def bench_robot(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One node for all malformed requests, which it has to survive one after the other."""
    robot = Robot(tmp_path_factory.mktemp("robot"))
    with robot.node():
        yield robot
        # Nor has anybody written to the log what a terminal would take for a command.
        assert robot.log.read_text().replace("\n", "").isprintable()
    robot.client.close()


def test_a_question_that_is_not_utf_8(robot: Robot) -> None:
    """No Python client can send one, but others can."""
    sent = serialize_message(Query.Request(question="Wh\u00e4t?", images=[image(1)]))
    request = deserialize_message(sent.replace("\u00e4".encode(), b"\xff\xfe"), Query.Request)
    with robot.node():
        answer = robot.client.ask(request.question, images=request.images).answer
    assert answer.text == "image_0=1 Wh\ufffd\ufffdt?"


def test_200_questions_at_the_same_time(robot: Robot) -> None:
    with robot.node(seconds=0.01):
        clients = [
            robot.client.node.create_client(Query, "/litevlm/query", qos_profile=QoSProfile(depth=200))
            for _ in range(4)
        ]
        robot.client.wait_for(lambda: all(client.service_is_ready() for client in clients))
        asked = {}
        for number in range(200):
            request = Query.Request(question=f"question {number}", images=[image(number)])
            asked[number] = clients[number % len(clients)].call_async(request)
        robot.client.wait_for(lambda: all(future.done() for future in asked.values()), 40)
    responses = {number: future.result() for number, future in asked.items()}
    answered = {number: response.answer.text for number, response in responses.items() if response.success}
    assert answered == {number: f"image_0={number} question {number}" for number in answered}
    assert len(answered) >= 16
    refused = {response.error.split(":")[0] for response in responses.values() if not response.success}
    assert refused <= {"busy"}


@pytest.mark.parametrize("clients", [1, 4])
def test_1000_goals_at_the_same_time(robot: Robot, clients: int) -> None:
    """Every one of them is answered, or rejected because the node is busy."""
    many = QoSProfile(depth=1000)
    qos = {f"{part}_service_qos_profile": many for part in ("goal", "result", "cancel")}
    with robot.node(seconds=0.01) as node:
        before = resident(process=node.pid)
        asking = [ActionClient(robot.client.node, Ask, "/litevlm/ask", **qos) for _ in range(clients)]
        robot.client.wait_for(lambda: all(client.server_is_ready() for client in asking))
        fields = {"images": [image(7, width=320, height=240, step=320, data=array.array("B", bytes(76_800)))]}
        goals = [
            asking[number % clients].send_goal_async(Ask.Goal(question=f"question {number}", **fields))
            for number in range(1000)
        ]
        robot.client.wait_for(lambda: all(goal.done() for goal in goals), 90)
        accepted = [goal.result() for goal in goals if goal.result().accepted]
        results = [goal.get_result_async() for goal in accepted]
        robot.client.wait_for(lambda: all(result.done() for result in results))
        assert len(accepted) >= 16
        assert all(result.result().result.success for result in results)
        assert "Rejected a goal of /litevlm/ask: busy: 16 questions are waiting" in robot.log.read_text()
        assert resident(process=node.pid) - before < 150 << 20, "images of goals that wait for a word are not kept"
        for client in asking:
            client.destroy()


@pytest.mark.parametrize("way", ["query", "ask"])
def test_a_client_that_is_killed_while_it_waits(robot: Robot, way: str) -> None:
    with robot.node(seconds=1.0), robot.process("asking_process.py", way, "Tell me all of it, please.") as asking:
        wait_for(lambda: "asked" in (robot.folder / "asking_process.py.log").read_text())
        other = robot.client.start_query("And mine?", images=[image(2)])
        asking.kill()
        assert robot.client.result(other).answer.text == "image_0=2 And mine?"
        assert robot.client.ask("Again?", images=[image(3)]).answer.text == "image_0=3 Again?"


def test_a_node_that_was_stopped_answers_when_it_continues(robot: Robot) -> None:
    with robot.node() as node:
        robot.client.ask("ready?", images=[image(1)])
        node.send_signal(signal.SIGSTOP)
        asked = [robot.client.start_query(f"question {number}", images=[image(number)]) for number in range(5)]
        for _ in range(20):
            robot.client.spin(0.05)
        assert not any(future.done() for future in asked)
        node.send_signal(signal.SIGCONT)
        texts = [robot.client.result(future).answer.text for future in asked]
    assert texts == [f"image_0={number} question {number}" for number in range(5)]


def test_large_questions_one_after_the_other_leave_no_memory_behind(robot: Robot) -> None:
    large = image(5, width=1600, height=1000, step=1600, data=array.array("B", b"\5" * 1_600_000))
    with robot.node() as node:

        def ask(times: int) -> int:
            for number in range(times):
                good = number % 3
                response = robot.client.ask("What?" if good else "", images=[large, image(1)])
                assert response.success == bool(good)
            return resident(process=node.pid)

        ask(15)
        before = ask(0)
        grown = ask(30) - before
    assert grown < 16 << 20
