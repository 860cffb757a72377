"""The node and its cameras as two processes on a ROS domain of their own; this one is the operator's."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from ros_domains import next_domain
from ros_process import ROOT, Client, image, process, slowdown, wait_for
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from litevlm_ros.msg import Answer, Caption

pytestmark = pytest.mark.ros

SUPPORT = ROOT / "test" / "support"
RAW, COMPRESSED = "raw:/front/image_raw", "compressed:/back/image_raw/compressed"
TOPICS = "camera_topics:=[/front/image_raw, /back/image_raw/compressed]"


class Site:
    """One domain with its processes and the log of the node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "node.log"
        self.domain = next_domain()
        self.client = Client(self.domain)

    @contextmanager
    def node(self, *parameters: str, seconds: float = 0.0) -> Iterator[subprocess.Popen[bytes]]:
        """The node with a scripted pipeline, active."""
        chosen = ("cameras:=[front, back]", TOPICS, "caption_period:=0.1", *parameters)
        arguments = ["--ros-args", *(part for parameter in chosen for part in ("-p", parameter))]
        with process(
            [str(SUPPORT / "scripted_node.py"), "--seconds", str(seconds), *arguments], self.log, self.domain
        ) as node:
            wait_for(lambda: "Ready" in self.log.read_text())
            yield node

    @contextmanager
    def cameras(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        command = [str(SUPPORT / "camera_process.py"), *arguments]
        with process(command, self.folder / "cameras.log", self.domain) as cameras:
            yield cameras


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.client.close()


def ask_until_answered(client: Client, question: str = "What?", **fields: Any) -> Any:
    """Asks again while the cameras are still being found."""

    def answer() -> Any:
        response = client.ask(question, **fields)
        return response if response.success else None

    return client.wait_for(answer)


def nanoseconds(stamp: Any) -> int:
    return int(stamp.sec * 10**9 + stamp.nanosec)


def test_captions_and_answers_from_raw_and_compressed_cameras(site: Site) -> None:
    client = site.client
    captions, texts = client.listen(Caption, "/litevlm/caption"), client.listen(String, "/litevlm/caption_text")
    answers = client.listen(Answer, "/litevlm/answer")
    with site.node() as node, site.cameras(RAW, COMPRESSED):
        client.wait_for(lambda: {caption.camera for caption in captions} == {"front", "back"} and len(captions) > 12)
        response = ask_until_answered(client, "What is there?", cameras=["back", "front"])
        client.wait_for(lambda: answers)
        node.send_signal(signal.SIGINT)
        assert node.wait(20) == 0
    assert re.fullmatch(r"back=\d+ front=\d+ What is there\?", response.answer.text)
    assert answers[-1] == response.answer
    assert {text.data.split(":")[0] for text in texts} == {"front", "back"}
    for caption in captions:
        assert re.fullmatch(rf"{caption.camera}=\d+0 Describe the scene\.", caption.text)
        assert caption.header.frame_id == "optical"
        assert 0 <= time.time_ns() - nanoseconds(caption.header.stamp) < 60e9
    for camera in ("front", "back"):
        stamps = [nanoseconds(caption.header.stamp) for caption in captions if caption.camera == camera]
        assert sorted(set(stamps)) == stamps, "a frame was captioned twice, or an older one after a newer one"
    assert "Traceback" not in site.log.read_text()


def test_captions_keep_to_the_newest_frame_when_inference_is_slow(site: Site) -> None:
    captions = site.client.listen(Caption, "/litevlm/caption")

    def later(camera: str) -> list[Any]:
        """All but the camera's first caption: DDS may lose what comes right after the first image."""
        return [caption for caption in captions if caption.camera == camera][1:]

    with site.node("caption_period:=0.01", seconds=0.6), site.cameras(RAW, COMPRESSED, "--rate", "60"):
        site.client.wait_for(lambda: min(len(later("front")), len(later("back"))) >= 2, 60)
        slower = slowdown()
    for caption in later("front") + later("back"):
        # Frames come every 17 ms: what had waited in a queue would be as old as the inference of the caption before.
        assert caption.timings.queue < 150 * slower


def test_a_query_is_answered_beside_captions(site: Site) -> None:
    captions = site.client.listen(Caption, "/litevlm/caption")
    with site.node("caption_period:=0.01", seconds=0.1), site.cameras(RAW, COMPRESSED):
        site.client.wait_for(lambda: captions)
        before = len(captions)
        ask_until_answered(site.client)
        for _ in range(5):
            response = site.client.ask("What?", cameras=["front"])
            assert response.success
            # At most the caption that ran when it came; never those that waited.
            assert response.answer.timings.queue < 190 * slowdown()
        site.client.wait_for(lambda: len(captions) > before + 2)


def test_cameras_that_come_late_stop_and_come_back(site: Site) -> None:
    client = site.client
    with site.node("max_frame_age:=0.5", "caption_period:=0.0"):
        error = client.ask("What?", cameras=["front"]).error
        assert error.startswith(
            "waiting for an image from front (nobody publishes /front/image_raw; there is no image topic"
        )
        with site.cameras(RAW):
            ask_until_answered(client, cameras=["front"])
            assert "back (nobody publishes" in client.ask("What?", cameras=["front", "back"]).error
            assert list(client.ask("What?").answer.cameras) == ["front"]
        time.sleep(0.7)
        error = client.ask("What?", cameras=["front"]).error
        assert re.search(r"front \(the last frame on /front/image_raw is \d\.\d s old, max_frame_age is 0\.5 s", error)
        with site.cameras(RAW):
            ask_until_answered(client, cameras=["front"])


def test_malformed_images_are_dropped_and_good_ones_used(site: Site) -> None:
    captions = site.client.listen(Caption, "/litevlm/caption")
    with site.node() as node, site.cameras(RAW, COMPRESSED, "--broken", "--rate", "50"):
        site.client.wait_for(lambda: sum(caption.camera == "front" for caption in captions) >= 8)
        node.send_signal(signal.SIGINT)
        assert node.wait(20) == 0
    log = site.log.read_text()
    assert log.count("Dropped an image of camera front on /front/image_raw") == 1
    assert "Dropped an image of camera back" not in log
    summary = re.search(r"Camera front: .*dropped: (.*)", log)
    assert summary is not None
    for cause in ("wrong step", "unknown encoding", "no pixels", "short data", "too large", "size unfit"):
        assert cause in summary.group(1)
    assert "Traceback" not in log


def test_broken_data_on_a_compressed_topic(site: Site) -> None:
    client = site.client
    good = bytes(compressed_image().data)
    with site.node("caption_period:=0.02") as node:
        publisher = client.publisher(CompressedImage, "/back/image_raw/compressed")
        for _ in range(3):
            for data in (
                b"",
                b"\xff",
                b"\xff\xd8\xff\xe0 nonsense",
                good[:20],
                good[:-12],
                b"\x89PNG\r\n\x1a\n" + bytes(99),
            ):
                publisher.publish(CompressedImage(format="jpeg", data=data))
                client.spin(0.03)
        assert "back (/back/image_raw/compressed has brought only malformed images" in client.ask("?").error
        publisher.publish(compressed_image())
        assert ask_until_answered(client).answer.text == "back=7 What?"
        assert node.poll() is None


def compressed_image() -> Any:
    from ros_process import compressed

    return compressed(7)


def test_a_topic_of_the_wrong_type_is_named(site: Site) -> None:
    with site.node("camera_topics:=[/front/image_raw, /back/image_raw]"), site.cameras("compressed:/front/image_raw"):
        site.client.wait_for(lambda: site.client.node.count_publishers("/front/image_raw"))
        wanted = "carries sensor_msgs/msg/CompressedImage, not sensor_msgs/msg/Image; change camera_topics or transport"
        site.client.wait_for(lambda: wanted in site.client.ask("What?").error)


def test_bad_requests_leave_the_node_unharmed(site: Site) -> None:
    client = site.client
    with site.node("caption_period:=0.0") as node:
        for fields in (
            {"question": ""},
            {"question": "x" * 100_000},
            {"question": "?", "cameras": ["", "\u2603", "x" * 5000]},
            {"question": "?", "images": [image(step=0)]},
            {"question": "?", "images": [Image()]},
            {"question": "?", "images": [image()] * 9},
            {"question": "?", "images": [image()], "temperature": float("inf")},
            {"question": "?", "images": [image()], "top_p": float("nan")},
            {"question": "?", "images": [image(width=2**32 - 1, height=2**32 - 1, step=2**32 - 1)]},
        ):
            response = client.ask(**fields)
            assert not response.success
            assert response.error
        largest = client.ask("?", images=[image(1)], max_new_tokens=2**32 - 1, top_k=2**32 - 1, seed=2**64 - 1)
        assert largest.success
        assert (
            client.ask("\u00e9\u20ac \U0001f6b2", images=[image(4)]).answer.text == "image_0=4 \u00e9\u20ac \U0001f6b2"
        )
        assert node.poll() is None


def test_a_client_that_goes_away_takes_no_answer_from_others(site: Site) -> None:
    with site.node("caption_period:=0.0", seconds=0.3) as node:
        leaving = Client(site.domain)
        leaving.start_query("lost", images=[image(1)])
        for _ in range(10):
            leaving.spin()
        stays = site.client.start_query("kept", images=[image(2)])
        leaving.close()
        assert site.client.result(stays).answer.text == "image_0=2 kept"
        assert site.client.ask("again", images=[image(3)]).answer.text == "image_0=3 again"
        assert node.poll() is None
