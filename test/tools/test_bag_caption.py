"""Small recordings through the demo model."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rosbags", reason="needs rosbags")
pytest.importorskip("onnxruntime", reason="needs a backend")

from rosbags.rosbag2 import Reader, StoragePlugin
from rosbags.typesys import Stores
from small_bags import START, SmallBag

from litevlm_ros.bags.caption_messages import CaptionMessages
from litevlm_ros.model_directory import TEXT, demo_model_directory, weight_files
from litevlm_ros.tools import bag_caption

pytestmark = pytest.mark.usefixtures("handlers")


def run(bag: Path, output: Path, *arguments: str) -> int:
    return bag_caption.main([str(bag), "--output", str(output), "--max-new-tokens", "4", "--threads", "1", *arguments])


def entries(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "captions.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return SmallBag(Stores.ROS2_JAZZY).write(tmp_path / "drive", StoragePlugin.MCAP, malformed=2)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_captions_as_lines_and_as_a_bag(bag: Path, tmp_path: Path, storage: str, capsys: Any) -> None:
    output = tmp_path / "out"
    assert run(bag, output, "--every", "0", "--storage", storage) == 0
    assert "7 captions in" in capsys.readouterr().out
    lines = entries(output)
    assert [line["camera"] for line in lines[:2]] == ["front", "back"]
    assert (lines[0]["bag"]["name"], lines[0]["model"]["name"]) == ("drive", "demo")
    assert lines[2]["stamp"] == {"sec": 1_700_000_000, "nanosec": 400_000_000}
    assert lines[4]["error"].startswith("step 1 is too small")
    assert (lines[0]["prompt"], lines[0]["generated_tokens"]) == ("Describe the scene.", 4)
    timings = lines[0]["timings"]
    assert 0 < timings["decode_image"] < timings["decode_image"] + timings["vision"] < timings["total"]
    types = CaptionMessages().types
    with Reader(output / "captions") as reader:
        messages = [
            (connection.topic, time, types.deserialize_cdr(data, connection.msgtype))
            for connection, time, data in reader.messages()
        ]
        definitions = {connection.msgtype: connection.msgdef.data for connection in reader.connections}
    assert "litevlm_ros/Timings" in definitions["litevlm_ros/msg/Caption"]
    captions = [(time, message) for topic, time, message in messages if topic == "/litevlm/caption"]
    texts = [message.data for topic, _, message in messages if topic == "/litevlm/caption_text"]
    good = [line for line in lines if "text" in line]
    assert texts == [f"{line['camera']}: {line['text']}" for line in good]
    assert [time for time, _ in captions] == [line["bag_time"] for line in good]
    assert captions[0][0] == START
    for line, (_, caption) in zip(good, captions, strict=True):
        stamp = caption.header.stamp
        assert {"sec": stamp.sec, "nanosec": stamp.nanosec} == line["stamp"]
        assert (caption.header.frame_id, caption.camera, caption.text) == ("optical", line["camera"], line["text"])
        assert caption.timings.total == pytest.approx(line["timings"]["total"], rel=1e-5)


def test_it_overwrites_nothing_and_resumes(bag: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "out"
    assert run(bag, output, "--topic", "/front/image_raw", "--every", "1") == 0
    log = output / "captions.jsonl"
    before = entries(output)
    assert len(before) == 2
    assert run(bag, output) == 1
    assert f"{log} exists; --resume continues it" in capsys.readouterr().err
    assert run(bag, output, "--resume", "--prompt", "What is ahead?") == 1
    assert "holds answers to 'Describe the scene.', not to 'What is ahead?'" in capsys.readouterr().err
    log.write_text(log.read_text(encoding="utf-8")[:-20], encoding="utf-8")  # as a crash leaves it
    assert run(bag, output, "--topic", "/front/image_raw", "--every", "0", "--resume") == 0
    assert "1 done before" in capsys.readouterr().out
    assert sorted(line["bag_time"] - START for line in entries(output)) == [0, 5 * 10**8, 10**9, 15 * 10**8]


def test_what_is_there_is_kept_of_a_bag_that_ends_early(bag: Path, tmp_path: Path, capsys: Any) -> None:
    output, file = tmp_path / "out", bag / "drive.mcap"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert run(bag, output, "--every", "0") == 1
    told = capsys.readouterr().err
    assert "drive.mcap: it ends at byte" in told
    assert "images that the index promises" in told
    kept = len(entries(output))
    assert 2 <= kept < 8
    with Reader(output / "captions") as reader:
        assert reader.message_count == 2 * sum("text" in line for line in entries(output))
    file.write_bytes(whole)  # the better copy that the message asks for
    assert run(bag, output, "--every", "0", "--resume") == 0
    assert f"{kept} done before" in capsys.readouterr().out
    assert len(entries(output)) == 8


def test_fewer_images_than_the_index_promises(bag: Path, tmp_path: Path, capsys: Any) -> None:
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 4", "message_count: 60"))
    assert run(bag, tmp_path / "out", "--every", "0") == 1
    assert "/front/image_raw has 4 of the 60 images that the index promises" in capsys.readouterr().err
    assert len(entries(tmp_path / "out")) == 8


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_one_file_of_a_bag(tmp_path: Path, storage: StoragePlugin, capsys: Any) -> None:
    bag = SmallBag().write(tmp_path / "drive", storage)
    (file,) = (file for file in bag.iterdir() if file.name != "metadata.yaml")
    moved = file.rename(tmp_path / file.name)
    assert run(moved, tmp_path / "out", "--every", "0") == 0
    assert "8 captions in" in capsys.readouterr().out


def test_images_with_one_recording_time_are_all_captioned(tmp_path: Path) -> None:
    small = SmallBag()
    pictures = [("/front/image_raw", START, small.raw(START, value)) for value in (0, 200)]
    pictures += [("/back/image_raw", START, small.raw(START, 100))]
    bag, output = small.write_messages(tmp_path / "drive", pictures), tmp_path / "out"
    assert run(bag, output, "--every", "0") == 0
    lines = (output / "captions.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    (output / "captions.jsonl").write_bytes(lines[0])
    assert run(bag, output, "--every", "0", "--resume") == 0
    assert [line["topic"] for line in entries(output)] == [json.loads(line)["topic"] for line in lines]


def test_one_topic_of_a_camera_unless_topics_chooses(tmp_path: Path, capsys: Any) -> None:
    small = SmallBag()
    raw, compressed = "/front/image_raw", "/front/image_raw/compressed"
    pictures = [(raw, START, small.raw(START, 0)), (compressed, START, small.compressed(START, 0))]
    bag = small.write_messages(tmp_path / "drive", pictures)
    assert run(bag, tmp_path / "one") == 0
    assert f"not captioned, as another topic shows the same: {compressed}; --topics chooses" in capsys.readouterr().err
    assert [line["topic"] for line in entries(tmp_path / "one")] == [raw]
    assert run(bag, tmp_path / "two", "--topics", compressed, raw) == 0
    assert sorted(line["topic"] for line in entries(tmp_path / "two")) == [raw, compressed]


def test_captions_of_another_bag_or_model_are_not_continued(bag: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "out"
    assert run(bag, output) == 0
    other = SmallBag().write(tmp_path / "other", StoragePlugin.MCAP)
    longer = SmallBag().write(tmp_path / "elsewhere" / "drive", StoragePlugin.MCAP, images=1)
    model = Path(shutil.copytree(demo_model_directory(), tmp_path / "demo"))
    weights = weight_files(model / TEXT)[0]
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    before = (output / "captions.jsonl").read_bytes()
    for arguments, told in (
        ((other, output), "captions of another bag (drive, "),
        ((longer, output), "is about another bag"),
        ((bag, output, "--model", str(model)), "captions of another model (demo, "),
    ):
        assert run(*arguments, "--resume") == 1
        assert told in capsys.readouterr().err
    assert (output / "captions.jsonl").read_bytes() == before


def test_foreign_files_stay(bag: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "out"
    (output / "captions").mkdir(parents=True)
    (output / "captions" / "notes.txt").write_text("mine")
    for arguments in ([], ["--resume"]):
        assert run(bag, output, *arguments) == 1
        assert str(output / "captions") in capsys.readouterr().err
    assert [file.name for file in output.rglob("*")] == ["captions", "notes.txt"]
    assert run(bag, bag / "out") == 1
    assert sorted(file.name for file in bag.iterdir()) == ["drive.mcap", "metadata.yaml"]


def started(bag: Path, output: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "litevlm_ros.tools.bag_caption", str(bag), "--output", str(output)]
    command += ["--max-new-tokens", "4", "--threads", "1", "--every", "0", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_lines(process: subprocess.Popen[str], log: Path, count: int) -> None:
    while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= count):
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_was_ended_goes_on(tmp_path: Path, number: signal.Signals, capsys: Any) -> None:
    bag, output = SmallBag().write(tmp_path / "drive", StoragePlugin.MCAP, images=150), tmp_path / "out"
    process = started(bag, output)
    wait_for_lines(process, output / "captions.jsonl", 3)
    process.send_signal(number)
    told = process.communicate()[1]
    assert process.returncode == (-number if number == signal.SIGKILL else 130), told
    done = len(entries(output))
    assert 3 <= done < 300
    if number != signal.SIGKILL:
        assert "the same command with --resume goes on" in told
        with Reader(output / "captions") as reader:
            assert reader.message_count == 2 * done
    assert run(bag, output, "--every", "9", "--resume") == 0
    assert f"{done} done before" in capsys.readouterr().out


def test_files_that_appear_during_the_work_stay(tmp_path: Path) -> None:
    bag, output = SmallBag().write(tmp_path / "drive", StoragePlugin.MCAP, images=150), tmp_path / "out"
    process = started(bag, output)
    wait_for_lines(process, output / "captions.jsonl", 1)
    (output / "captions").mkdir()
    (output / "captions" / "notes.txt").write_text("mine")
    process.send_signal(signal.SIGTERM)
    told = process.communicate()[1]
    assert "captions holds what this tool has not written (notes.txt). Move that away" in told
    assert sorted(file.name for file in output.rglob("*")) == ["captions", "captions.jsonl", "notes.txt"]


def test_no_image_that_can_be_decoded(tmp_path: Path, capsys: Any) -> None:
    small = SmallBag()
    picture = small.raw(START, 0, encoding="nonsense")
    bag = small.write_messages(tmp_path / "drive", [("/front", START, picture)])
    assert run(bag, tmp_path / "out") == 1
    assert "no image could be captioned; the first one, because unknown encoding 'nonsense'" in capsys.readouterr().err


def test_it_needs_no_ros(bag: Path, tmp_path: Path) -> None:
    """An import of rclpy or of a message would fail."""
    code = (
        "import sys\n"
        "for name in ('rclpy', 'sensor_msgs', 'litevlm_ros.msg', 'torch'): sys.modules[name] = None\n"
        "from litevlm_ros.tools.bag_caption import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = [str(bag), "--output", str(tmp_path / "out"), "--max-new-tokens", "1", "--every", "9"]
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "2 captions in" in result.stdout


def test_mistakes_are_explained(bag: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "out"
    assert run(tmp_path / "nowhere", output) == 1
    assert "does not exist" in capsys.readouterr().err
    assert run(tmp_path, output) == 1
    assert "is no bag" in capsys.readouterr().err
    assert run(bag, output, "--topic", "/nothing") == 1
    assert "has no images on /nothing; it has them on" in capsys.readouterr().err
    assert run(bag, output, "--every", "-1") == 1
    assert "--every is -1; allowed" in capsys.readouterr().err
    assert run(bag, output, "--model", str(tmp_path)) == 1
    assert str(tmp_path) in capsys.readouterr().err
    assert not output.exists()
    shutil.rmtree(bag)
