"""Cameras that are killed, come back as another, or send nonsense; and two robots on one network."""

from __future__ import annotations

import array
import re
import subprocess
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from rclpy.serialization import serialize_message
from robot import SUPPORT, TOPIC, Robot
from ros_domains import next_domain
from ros_process import Client, image, process
from sensor_msgs.msg import Image

from litevlm_ros.msg import Caption
from litevlm_ros.srv import Query

pytestmark = pytest.mark.ros


def test_a_camera_that_is_killed_and_comes_back_with_another_size_and_encoding(robot: Robot) -> None:
    captions = robot.client.listen(Caption, "/litevlm/caption")
    with robot.node("caption_period:=0.05", "max_frame_age:=0.5"):
        with robot.process("camera_process.py", f"raw:{TOPIC}") as camera:
            robot.client.wait_for(lambda: len(captions) > 3)
            camera.kill()
        time.sleep(0.7)
        assert "the last frame on" in robot.client.ask("What?", cameras=["front"]).error
        publisher = robot.client.publisher(Image, TOPIC)
        for encoding, width, height, samples, value in (
            ("rgb8", 16, 12, 3, 60), ("mono8", 320, 200, 1, 61), ("rgb8", 4, 4, 3, 62), ("mono8", 8, 6, 1, 63),
        ):  # fmt: skip
            step = width * samples
            data = array.array("B", bytes([value]) * step * height)

            def published(
                encoding: str = encoding, width: int = width, height: int = height, data: array.array[int] = data,
                step: int = step, value: int = value,
            ) -> bool:  # fmt: skip
                publisher.publish(image(encoding=encoding, width=width, height=height, step=step, data=data))
                robot.client.spin()
                return any(caption.text.startswith(f"front={value} ") for caption in captions)

            robot.client.wait_for(published)


def test_bytes_that_are_no_image_messages(robot: Robot) -> None:
    good = serialize_message(image(9))
    with robot.node("max_frame_age:=20.0"):
        publisher = robot.client.publisher(Image, TOPIC)
        for data in (good[:4], good[:20], good[:-30], good[:24] + b"\xff" * 4 + good[28:], b"\xff" * 60, bytes(60),
                     good.replace(b"mono8", b"\xff\xfe\x1b[m"), good + bytes(50_000)):  # fmt: skip
            publisher.publish(data)
            robot.client.spin(0.05)
        publisher.publish(image(9))
        assert robot.ask_until_answered(cameras=["front"]).answer.text == "front=9 What?"
        assert robot.log.stat().st_size < 50_000


def test_two_nodes_in_their_own_namespaces(tmp_path: Path) -> None:
    domain = next_domain()
    client = Client(domain)
    try:
        with _node(tmp_path, domain, "red") as red, _node(tmp_path, domain, "blue") as blue:
            for name, value in (("red", 10), ("blue", 20), ("red", 10)):
                publisher = client.publisher(Image, f"/{name}/front/image_raw")

                def answer(name: str = name, value: int = value, publisher: object = publisher) -> str:
                    publisher.publish(image(value))
                    request = Query.Request(question=name, cameras=["front"])
                    response = client.try_call(Query, f"/{name}/litevlm/query", request)
                    return response.answer.text if response else ""

                assert re.fullmatch(rf"front={value} {name}", client.wait_for(answer))
            assert red.poll() is None
            assert blue.poll() is None
    finally:
        client.close()


def _node(folder: Path, domain: int, name: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    arguments = ["-r", f"__ns:=/{name}", "-p", "cameras:=[front]", "-p", "camera_topics:=[front/image_raw]", "-p",
                 "caption_period:=0.0"]  # fmt: skip
    return process([str(SUPPORT / "scripted_node.py"), "--ros-args", *arguments], folder / f"{name}.log", domain)
