"""The command line client: its options without ROS, and its answers from a scripted node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from package_files import ROOT
from ros_process import wait_for

from litevlm_ros.tools.ask import _Printer, main

COMMAND = [sys.executable, "-m", "litevlm_ros.tools.ask"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "QUESTION"),
        ([" \n"], "the question is empty"),
        (["\udcff?"], "not UTF-8"),
        (["?", "--max-new-tokens", "-1"], "--max-new-tokens"),
        (["?", "--max-new-tokens", "4294967296"], "--max-new-tokens"),
        (["?", "--temperature", "nan"], "--temperature"),
        (["?", "--top-p", "1.5"], "--top-p"),
        (["?", "--timeout", "0"], "--timeout"),
        (["?", "--seed", "one"], "--seed"),
        (["?", "--unknown"], "--unknown"),
    ],
)
def test_options_that_cannot_be_right(
    handlers: None, arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "contents", "reason"),
    [
        ("missing.jpg", None, "there is no such file; correct --image"),
        (".", None, "this is a directory; give --image one photo"),
        ("empty.png", b"", "it holds no data"),
        ("text.jpg", b"not a picture at all", "it is neither a JPEG nor a PNG"),
        ("cut.png", b"\x89PNG\r\n\x1a\n", "PNG"),
    ],
)
def test_photos_that_are_none(
    handlers: None, tmp_path: Path, name: str, contents: bytes | None, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / name
    if contents is not None:
        photo.write_bytes(contents)
    assert main(["What is it?", "--image", str(photo)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"ask: {photo}: ")
    assert reason in printed.err
    assert printed.err.count("\n") == 1


def test_help_needs_no_ros() -> None:
    code = "import sys; sys.modules['rclpy'] = None; from litevlm_ros.tools.ask import main; main(['--help'])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RMW_IMPLEMENTATION": "none"}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "--stream" in shown.stdout
    assert "exit status is 0 with an answer" in shown.stdout


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_printed_once(stream: bool, capsys: pytest.CaptureFixture[str]) -> None:
    printer = _Printer(stream)
    for text in (" A", " A van", " A van ahead.", " A van ahead. "):
        printer.piece(text)
    assert capsys.readouterr().out == ("A van ahead. " if stream else "")
    printer.end("A van ahead.")
    printer.stop()
    assert capsys.readouterr().out == ("\n" if stream else "A van ahead.\n")


def test_pieces_that_were_lost_come_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    printer = _Printer(stream=True)
    printer.piece("A")
    printer.end("A van\x1b[2J.")
    assert capsys.readouterr().out == "A van\\x1b[2J.\n"


# --- with a node


@pytest.fixture
def robot(tmp_path: Path) -> Iterator[Any]:
    pytest.importorskip("rclpy", reason="needs ROS 2")
    pytest.importorskip("litevlm_ros.msg", reason="needs the built package")
    from robot import Robot

    robot = Robot(tmp_path)
    yield robot
    robot.client.close()


def start(robot: Any, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": str(robot.domain),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    return subprocess.Popen(
        [*COMMAND, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ask(robot: Any, *arguments: str) -> tuple[int, str, str]:
    """Status, stdout and stderr."""
    child = start(robot, *arguments)
    out, error = child.communicate(timeout=60)
    return child.returncode, out, error


@pytest.mark.ros
def test_answers_of_a_node(robot: Any, tmp_path: Path) -> None:
    photos = {name: str(tmp_path / name) for name in ("a.png", "b.jpg")}
    for value, photo in enumerate(photos.values(), 1):
        cv2.imwrite(photo, np.full((16, 16, 3), 9 * value, np.uint8))
    given = [part for photo in photos.values() for part in ("--image", photo)]
    with robot.node():
        status, out, error = ask(robot, "What is a van?", "--cameras", "none")
        assert (status, out.strip()) == (0, "What is a van?")
        assert error.startswith("ask: about no image; 3 tokens in ")
        assert ask(robot, "Is it?", *given)[:2] == (0, "image_0=9 image_1=18 Is it?\n")
        assert ask(robot, "Is it?", *given, "--cameras", "x, y", "--stream")[:2] == (0, "x=9 y=18 Is it?\n")
        status, out, error = ask(robot, "?", "--cameras", "top", "--node", "litevlm")
        assert (status, out, error) == (1, "", "ask: unknown camera top; known are front\n")
        status, out, error = ask(robot, "?", "--node", "/other/litevlm")
        assert (status, out) == (1, "")
        assert "no node /other/litevlm answers questions; choose with --node: /litevlm" in error


@pytest.mark.ros
def test_no_node_and_a_node_that_is_not_active(robot: Any) -> None:
    status, out, error = ask(robot, "?")
    assert (status, out) == (1, "")
    assert f"no node that answers questions was found in ROS domain {robot.domain}. Start one with ros2" in error
    with robot.node() as _:
        assert robot.client.change_state("deactivate")
        status, out, error = ask(robot, "?")
    assert (status, out) == (1, "")
    rejected = "ask: /litevlm rejected the question: /litevlm is inactive; to activate it: ros2 lifecycle set /litevlm"
    assert error == f"{rejected} activate\n"


@pytest.mark.ros
def test_ctrl_c_a_time_limit_and_a_node_that_dies(robot: Any) -> None:
    words = " ".join(map(str, range(300)))
    with robot.node("max_queued_questions:=1", seconds=60.0) as node:
        child = start(robot, words, "--cameras", "none", "--stream")
        assert child.stdout is not None
        assert child.stdout.read(3) == "0 1"
        child.send_signal(signal.SIGINT)
        out, error = child.communicate(timeout=30)
        assert (child.returncode, error) == (130, "ask: cancelled\n")
        assert out.endswith("\n")

        status, out, error = ask(robot, words, "--cameras", "none", "--timeout", "3")
        assert (status, out) == (1, "")
        assert error.startswith("ask: no answer in the time that --timeout allows")

        held = [robot.client.start_query(words, cameras=["none"])]
        wait_for(lambda: True if held else None, step=robot.client.spin)
        robot.client.spin(0.5)
        held.append(robot.client.start_query(words, cameras=["none"]))
        robot.client.spin(0.5)
        status, out, error = ask(robot, words, "--cameras", "none")
        assert (status, out) == (1, "")
        assert error.startswith("ask: /litevlm rejected the question: busy: too many questions wait already")
        assert node.poll() is None


@pytest.mark.ros
def test_a_node_that_ends_meanwhile_tells_its_client(robot: Any) -> None:
    with robot.node(seconds=60.0) as node:
        child = start(robot, " ".join(map(str, range(300))), "--cameras", "none", "--stream")
        assert child.stdout is not None
        assert child.stdout.read(3) == "0 1"
        node.terminate()
        _, error = child.communicate(timeout=40)
        assert child.returncode == 1
        assert "ask: the node stopped before the answer was complete" in error
        node.wait(10)
        node.poll = lambda: None  # the end is what was asked for
