"""Small recordings through the demo model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rosbags", reason="needs rosbags")
pytest.importorskip("onnxruntime", reason="needs a backend")

from rosbags.rosbag2 import Reader, StoragePlugin
from rosbags.typesys import Stores
from small_bags import START, SmallBag

from litevlm_ros.bags.caption_bag import caption_typestore
from litevlm_ros.tools import bag_caption


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
    assert lines[2]["stamp"] == {"sec": 1_700_000_000, "nanosec": 400_000_000}
    assert lines[4]["error"].startswith("step 1 is too small")
    assert (lines[0]["prompt"], lines[0]["generated_tokens"]) == ("Describe the scene.", 4)
    timings = lines[0]["timings"]
    assert 0 < timings["decode_image"] < timings["decode_image"] + timings["vision"] < timings["total"]
    types = caption_typestore()
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


def test_what_is_there_is_kept_of_a_bag_that_ends_early(
    bag: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    from litevlm_ros.bags.image_bag import BagError, ImageBag

    images = ImageBag.images

    def broken(self: ImageBag, *arguments: Any) -> Any:
        yield next(images(self, *arguments))
        raise BagError("the bag ends here")

    monkeypatch.setattr(ImageBag, "images", broken)
    assert run(bag, tmp_path / "out") == 1
    assert "the bag ends here" in capsys.readouterr().err
    assert len(entries(tmp_path / "out")) == 1
    with Reader(tmp_path / "out" / "captions") as reader:
        assert reader.message_count == 2


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
