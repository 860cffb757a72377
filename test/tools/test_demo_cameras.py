from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from package_files import ROOT
from ros_domains import next_domain
from ros_process import process, slowdown

from litevlm_ros.lab.demo.ground_truth import TOPIC
from litevlm_ros.tools.demo_cameras import main

SMALL = ["--cameras", "front,back", "--rate", "10", "--scene-seconds", "1", "--width", "160", "--height", "120"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--rate", "0"], "--rate"),
        (["--scene-seconds", "nan"], "--scene-seconds"),
        (["--width", "4"], "--width"),
        (["--cameras", "left"], "left"),
        (["--cameras", "front,front"], "twice"),
        (["--video", "missing.mp4"], "missing.mp4"),
        (["--photos", "missing"], "missing"),
    ],
)
def test_settings_that_cannot_work_are_named(
    handlers: None, arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert named in capsys.readouterr().err


@pytest.mark.ros
def test_it_publishes_both_kinds_of_images_and_the_truth_and_ends_on_ctrl_c() -> None:
    rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
    from sensor_msgs.msg import CompressedImage, Image
    from std_msgs.msg import String

    from litevlm_ros.images.compressed import decode_compressed
    from litevlm_ros.images.decoding import decode_raw

    domain = next_domain()
    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": str(domain),
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *sys.path])),
    }
    command = [sys.executable, "-m", "litevlm_ros.tools.demo_cameras", *SMALL]
    cameras = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("viewer", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    got = defaultdict(list)
    kept = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    try:
        for name in ("front", "back"):
            node.create_subscription(Image, f"/{name}/image_raw", got[f"{name} raw"].append, qos_profile_sensor_data)
            node.create_subscription(
                CompressedImage, f"/{name}/image_raw/compressed", got[f"{name} jpeg"].append, qos_profile_sensor_data
            )
        node.create_subscription(String, TOPIC, got["truth"].append, kept)
        deadline = time.monotonic() + 30
        while (len(got) < 5 or min(map(len, got.values())) < 2) and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
    finally:
        cameras.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, errors = cameras.communicate(timeout=30)
        ended = time.monotonic() - began
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)
    assert ended < 5 * slowdown()
    assert cameras.returncode == 0
    assert "Traceback" not in errors
    raw, jpeg = got["front raw"][-1], got["front jpeg"][-1]
    assert raw.header.frame_id == "front"
    fields = (raw.encoding, raw.height, raw.width, raw.step)
    assert fields == ("rgb8", 120, 160, 480)
    picture = decode_raw(raw.encoding, raw.width, raw.height, raw.step, raw.data)
    assert picture.std() > 5
    assert decode_compressed(jpeg.format, jpeg.data).shape == (120, 160, 3)
    stamps = {(m.header.stamp.sec, m.header.stamp.nanosec) for m in got["back raw"]}
    assert stamps & {(m.header.stamp.sec, m.header.stamp.nanosec) for m in got["front raw"]}
    truths = [json.loads(message.data) for message in got["truth"]]
    assert truths[1]["scene_seed"] == truths[0]["scene_seed"] + 1
    assert set(truths[0]["captions"]) == {"front", "back"}


PUBLISHING = "demo/publisher.py:publish"
PHASES = {
    "import": "rclpy/__init__.py:<module>",
    "init": "rclpy/__init__.py:init",
    "node": "rclpy/node.py:__init__",
    "publishers": "rclpy/publisher.py:__init__",
    "publishing": PUBLISHING,
    "waiting": "litevlm_ros/processes.py:wait",
    "twice": f"{PUBLISHING},litevlm_ros/processes.py:wait",
    "leaving": f"{PUBLISHING},rclpy/node.py:destroy_node",
    "shutdown": f"{PUBLISHING},rclpy/utilities.py:try_shutdown",
}


@pytest.mark.ros
@pytest.mark.parametrize("places", PHASES.values(), ids=PHASES)
def test_a_signal_in_any_phase_ends_it(tmp_path: Path, places: str) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2")
    log = tmp_path / "log"
    command = [str(ROOT / "test/support/signalled.py"), "litevlm_ros.tools.demo_cameras", places, *SMALL]
    with process(command, log, next_domain()) as child:
        status = child.wait(60)
    output = log.read_text()
    assert status == 0, output
    assert "Traceback" not in output
    assert output.count("signalled at") == len(places.split(","))
