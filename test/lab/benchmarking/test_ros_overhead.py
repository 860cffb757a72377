from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.lab.benchmarking.ros_bench import camera_message
from litevlm_ros.lab.benchmarking.ros_overhead import measure
from litevlm_ros.lab.benchmarking.stages import camera_image
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.node.messages import decode_image
from litevlm_ros.tools.benchmark import main

pytestmark = pytest.mark.ros


def test_messages_show_the_image() -> None:
    image = camera_image(0, 64, 48)
    np.testing.assert_array_equal(decode_image(camera_message("bgr8", image)), image)
    assert np.abs(decode_image(camera_message("jpeg", image)).astype(int) - image).mean() < 8


@pytest.mark.parametrize("encoding", ["bgr8", "jpeg"])
def test_every_frame_is_measured(encoding: str) -> None:
    times = measure(encoding, camera_image(0, 320, 240), 5)
    assert {name: len(values) for name, values in times.items() if name != "conversion"} == {
        "transport": 5, "decode_image": 5, "overhead": 5, "received": 5,
    }  # fmt: skip
    assert all(value > 0 for values in times.values() for value in values)
    for decode, overhead, received in zip(times["decode_image"], times["overhead"], times["received"], strict=True):
        assert decode < overhead < received


def test_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "ros.json"
    arguments = ["--resolution", "64x48", "--runs", "2", "--seconds", "1", "--model", str(demo_model_directory())]
    assert main(["--ros", *arguments, "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert report["work"] == {"resolution": [64, 48], "runs": 2}
    printed = capsys.readouterr().out
    for encoding in ("bgr8", "jpeg"):
        assert f"{report['ros'][encoding]['received']['median']:.2f}" in printed
    load = report["load"]
    assert set(load["cameras"]) == set(DEMO_CAMERAS)
    for counts in load["cameras"].values():
        assert 0 < counts["received"] <= counts["published"] + 1
    assert load["captions"] > 0
    assert load["stale"] == 0
    for name in ("callback", "late", "age"):
        assert 0 <= load[name]["median"] <= load[name]["p99"] <= load[name]["most"]
        assert f"{load[name]['p99']:.2f}" in printed
