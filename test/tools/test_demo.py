"""The whole demonstration: real cameras, real node, real model, real DDS."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from ros_domains import next_domain
from ros_process import ROOT, process, slowdown, wait_for

from litevlm_ros.lab.demo import run as run_module
from litevlm_ros.lab.demo import show as show_module
from litevlm_ros.lab.demo.pictures import Pictures
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.tools.demo import main

pytestmark = pytest.mark.ros

LONG = ["--seconds", "60"]
"""Enough on a busy machine: the clock jumps to the end when all cameras have captions and all answers are there."""


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the tool, whose children join a domain of their own."""
    skipped = 0.0

    class Run(run_module.Run):
        def step(self, deadline: float) -> None:
            nonlocal skipped
            super().step(deadline)
            arrived, _ = self.node.frames()  # as the node tells it, once a second
            if self.complete and set(self._captioned) == set(self._cameras) and arrived and self.node.backend:
                skipped = 1000.0

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + skipped)
    monkeypatch.setattr(show_module, "Run", Run)
    monkeypatch.setattr(run_module, "_MOST_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(run_module, "time", clock)
    monkeypatch.setattr(show_module, "time", clock)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(next_domain()))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return lambda folder, *arguments: main(["--output", str(folder), *arguments])


def test_captions_and_answers_arrive(
    demo: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = demo(tmp_path, *LONG)
    printed = capsys.readouterr()
    assert status == 0, printed
    cameras = set(re.findall(r"^\[.*s\] (\w+): ", printed.out, re.MULTILINE))
    assert len(cameras) == 6
    assert len(re.findall(r"answer: .+   truth: .+   (?:right|WRONG)", printed.out)) == 3
    true, stated = map(int, re.search(r"(\d+) of (\d+) statements true$", printed.out, re.MULTILINE).groups())
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


def test_a_video_has_no_truth(
    demo: Callable[..., int], tmp_path: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = demo(tmp_path / "out", *LONG, "--video", str(video))
    printed = capsys.readouterr()
    assert status == 0, printed
    assert printed.out.count("answer: ") == 3
    assert "truth:" not in printed.out
    assert (tmp_path / "out" / "demo.png").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_model_is_converted_once_and_runs(
    demo: Callable[..., int], tmp_path: Path, video: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript", reason="a model is exported with onnxscript")
    from tiny_checkpoint import write_checkpoint

    arguments = ["--model", str(write_checkpoint(tmp_path / "mine")), "--models", str(tmp_path / "models")]
    arguments += ["--video", str(video), "--question", "Is 'it' a \"car\"?", "--question", "What?"]
    assert demo(tmp_path / "out", *arguments, "--check") == 0
    assert not (tmp_path / "models").exists()
    status = demo(tmp_path / "out", *LONG, *arguments)
    printed = capfd.readouterr()
    assert status == 0, printed
    assert "split the checkpoint into its two parts" in printed.out
    assert "answers: 2 of 2\n" in printed.out
    assert "Is 'it' a \"car\"?\n" in printed.out
    assert re.search(r"^mean caption: .*vision .*total [0-9.]+ ms$", printed.out, re.MULTILINE)
    assert re.search(r"^frames: [1-9][0-9]* arrived, 0 dropped$", printed.out, re.MULTILINE)
    assert f"recorded: {tmp_path / 'out' / 'captions.jsonl'}, on " in printed.out
    lines = [json.loads(line) for line in (tmp_path / "out" / "captions.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines].count("answer") == 2
    assert demo(tmp_path / "out", *LONG, *arguments) == 0
    printed = capfd.readouterr()
    assert f"reusing {tmp_path / 'models' / 'mine'}, which has everything" in printed.out
    assert "split" not in printed.out


def test_a_node_that_cannot_load_the_model_ends_the_run(
    demo: Callable[..., int], tmp_path: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "broken"
    shutil.copytree(demo_model_directory(), model)
    (model / "vision_encoder.onnx").write_bytes(b"no graph")
    assert demo(tmp_path / "out", *LONG, "--model", str(model), "--video", str(video)) == 1
    assert re.search(r"the node cannot work: .*vision_encoder.onnx has changed since", capsys.readouterr().err)


def test_too_short_a_run_fails_and_shows_the_logs(
    demo: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo(tmp_path, "--seconds", "0.3") == 1
    printed = capsys.readouterr()
    assert "last lines of" in printed.err
    assert "captions: 0" in printed.out


def test_cameras_that_end_are_reported(
    demo: Callable[..., int],
    tmp_path: Path,
    video: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Pictures, "options", ["--video", str(tmp_path / "none.avi")])
    assert demo(tmp_path, *LONG, "--video", str(video)) == 1
    assert "demo_cameras ended early with status" in capsys.readouterr().err


def test_interrupting_ends_every_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = ["-m", "litevlm_ros.tools.demo", "--seconds", "60", "--output", str(tmp_path)]
    with process(command, log, next_domain()) as child:
        wait_for(lambda: (tmp_path / "node.log").exists() and "Ready" in (tmp_path / "node.log").read_text())
        started = time.monotonic()
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 130
        assert time.monotonic() - started < 5 * slowdown()
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
        (["--video", "/nowhere.mp4"], "There is no video /nowhere.mp4"),
        (["--seconds", "0"], "--seconds is 0; give how long to run"),
        (["--camera", "/nowhere/video7"], "There is no camera /nowhere/video7"),
        (["--image", "/nowhere.jpg"], "There is no photo /nowhere.jpg"),
        (["--question", "What?"], "--question is for a model that --model names"),
        (["--prepare"], "--prepare needs --model"),
        (["--model", "nonsense"], "--model nonsense is not a directory"),
        (["--model", "internvl2-1b", "--seconds", "0"], "--seconds is 0; give how long to run"),
        (["--model", "internvl2-1b", "--video", "/nowhere.mp4"], "There is no video /nowhere.mp4"),
    ],
)
def test_mistakes_are_explained(
    demo: Callable[..., int],
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert demo(tmp_path, *arguments) == 1
    assert message in capsys.readouterr().err
