"""The whole demonstration: real cameras, real node, real model, real DDS."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from ros_process import ROOT, next_domain, process, wait_for

from litevlm_ros.tools.demo import main

pytestmark = pytest.mark.ros


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "ROS_DOMAIN_ID": str(next_domain()), "PYTHONPATH": paths}
    command = [sys.executable, "-m", "litevlm_ros.tools.demo", "--output", str(folder), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_captions_and_answers_arrive(tmp_path: Path) -> None:
    result = demo(tmp_path, "--seconds", "9")
    assert result.returncode == 0, result.stdout + result.stderr
    cameras = set(re.findall(r"^\[.*s\] (\w+): ", result.stdout, re.MULTILINE))
    assert len(cameras) == 6
    assert len(re.findall(r"answer: .+   truth: .+   (?:right|WRONG)", result.stdout)) == 3
    true, stated = map(int, re.search(r"(\d+) of (\d+) statements true$", result.stdout, re.MULTILINE).groups())
    assert true / stated > 0.8, "the model does not see"
    picture = cv2.imread(str(tmp_path / "demo.png"))
    assert picture.shape[0] > 600
    assert "Traceback" not in (tmp_path / "node.log").read_text() + (tmp_path / "cameras.log").read_text()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    file = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10, (320, 240))
    for index in range(20):
        writer.write(np.full((240, 320, 3), 100 + index, np.uint8))
    writer.release()
    return file


def test_a_video_has_no_truth(tmp_path: Path, video: Path) -> None:
    result = demo(tmp_path / "out", "--seconds", "7", "--video", str(video))
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("answer: ") == 3
    assert "truth:" not in result.stdout
    assert (tmp_path / "out" / "demo.png").exists()


def test_too_short_a_run_fails_and_shows_the_logs(tmp_path: Path) -> None:
    result = demo(tmp_path, "--seconds", "0.3")
    assert result.returncode == 1
    assert "last lines of" in result.stderr
    assert "captions: 0" in result.stdout


def test_cameras_that_end_are_reported(tmp_path: Path) -> None:
    (tmp_path / "no.avi").write_text("nonsense")
    result = demo(tmp_path, "--seconds", "20", "--video", str(tmp_path / "no.avi"))
    assert result.returncode == 1
    assert "demo_cameras ended early with status" in result.stderr


def test_interrupting_ends_every_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = ["-m", "litevlm_ros.tools.demo", "--seconds", "60", "--output", str(tmp_path)]
    with process(command, log, next_domain()) as child:
        wait_for(lambda: (tmp_path / "node.log").exists() and "Ready" in (tmp_path / "node.log").read_text())
        started = time.monotonic()
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 130
    assert time.monotonic() - started < 5
    assert log.read_text().endswith("demo: interrupted\n")
    children = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in _read(path)]
    assert children == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--video", "/nowhere.mp4"], "--video /nowhere.mp4: there is no such file"),
        (["--seconds", "0"], "--seconds is 0; give how long to run"),
    ],
)
def test_mistakes_are_explained(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    assert main(["--output", str(tmp_path), *arguments]) == 1
    assert message in capsys.readouterr().err
