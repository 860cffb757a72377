from __future__ import annotations

import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.errors import ConfigError, ImageError
from litevlm_ros.lab.demo.sources import Photos, RenderedStreets, VideoFile
from litevlm_ros.lab.world.captions import caption
from litevlm_ros.lab.world.scene import generate
from litevlm_ros.lab.world.splits import FIRST_HELD_OUT_SEED


def _wait_for_drawing(streets: RenderedStreets) -> None:
    deadline = time.monotonic() + 20
    while not streets._coming.done() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_each_rendered_scene_comes_with_its_truth_once() -> None:
    streets = RenderedStreets(DEMO_CAMERAS, seed=3, scene_seconds=1.0, width=64, height=48)
    first = streets.next(0.0)
    again = streets.next(0.5)
    _wait_for_drawing(streets)
    second = streets.next(1.1)
    streets.close()
    assert first.facts is not None
    assert second.facts is not None
    assert again.facts is None
    assert [first.facts["scene_seed"], second.facts["scene_seed"]] == [FIRST_HELD_OUT_SEED + 3, FIRST_HELD_OUT_SEED + 4]
    scene = generate(FIRST_HELD_OUT_SEED + 3)
    assert first.facts["captions"] == {camera: caption(scene, camera) for camera in DEMO_CAMERAS}
    assert len(first.facts["questions"]) == 6
    assert {image.shape for image in first.images.values()} == {(48, 64, 3)}
    assert any(not np.array_equal(first.images[name], second.images[name]) for name in DEMO_CAMERAS)


@pytest.mark.parametrize(
    ("cameras", "seed", "named"), [(["left"], 0, "left"), ([], 0, "--cameras"), (["front"], -1, "--seed")]
)
def test_what_the_street_world_does_not_have_is_refused(cameras: list[str], seed: int, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        RenderedStreets(cameras, seed, 1.0, 64, 48)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Ten frames at 10 Hz; frame n is grey of 20 n."""
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(10):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()
    return path


def test_a_video_plays_at_its_own_speed_and_in_a_loop(video: Path) -> None:
    source = VideoFile(video, ["front", "back"])
    shown = []
    for seconds in (0.0, 0.05, 0.35, 0.75, 1.05, 1.25):
        shot = source.next(seconds)
        assert shot.images["front"] is shot.images["back"]
        shown.append(round(float(shot.images["front"].mean()) / 20))
    source.close()
    assert shown == [0, 0, 3, 7, 0, 2]


def test_videos_that_cannot_be_played_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="There is no video"):
        VideoFile(tmp_path / "none.mp4", ["front"])
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video" * 100)
    with pytest.raises(ImageError, match=r"cannot be read; .*`ffmpeg -i "):
        VideoFile(broken, ["front"])


def test_a_video_whose_pictures_cannot_be_decoded_is_told_apart(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoDecoder:
        def __init__(self, path: str) -> None:
            assert path == str(video)

        def isOpened(self) -> bool:
            return True

        def get(self, what: int) -> float:
            return 10.0

        def read(self) -> tuple[bool, None]:
            return False, None

    monkeypatch.setattr(cv2, "VideoCapture", NoDecoder)
    with pytest.raises(ImageError, match=r"opens, but OpenCV .* cannot decode its pictures; convert it with `ffmpeg"):
        VideoFile(video, ["front"])


def test_what_may_not_be_read_is_told_with_the_fix(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ImageError, match=r"Permission denied for video .*`sudo chmod a\+r"):
        VideoFile(video, ["front"])


def test_photos_take_turns_and_broken_ones_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in (1, 2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((20 + number, 30, 3), (0, 0, 100 * number), np.uint8))
    (tmp_path / "0.jpg").write_bytes(b"broken")
    (tmp_path / "notes.txt").write_text("no photo")
    source = Photos(tmp_path, ["front", "back"], photo_seconds=1.0)
    first, second = source.next(0.0), source.next(1.0)
    # OpenCV stores blue first; what is published is red first.
    assert first.images["front"][0, 0].tolist() == [100, 0, 0]
    assert first.images["front"].shape == (21, 30, 3)
    assert first.images["back"].shape == (22, 30, 3)
    assert second.images["front"].shape == (22, 30, 3)
    assert "0.jpg" in caplog.text


def test_one_photo_is_shown_for_ever(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.full((20, 30, 3), 7, np.uint8))
    source = Photos(photo, ["front"], photo_seconds=1.0)
    assert source.next(0.0).images["front"].shape == source.next(9.0).images["front"].shape == (20, 30, 3)
    photo.write_bytes(b"broken")
    with pytest.raises(
        ImageError, match=r"photo.png is not a readable photo: .*neither a JPEG nor a PNG; take a JPEG or PNG"
    ):
        Photos(photo, ["front"], 1.0).next(0.0)


def test_photos_are_read_as_the_node_reads_pictures(tmp_path: Path) -> None:
    jpeg = cv2.imencode(".jpg", np.full((64, 64, 3), (0, 0, 90), np.uint8))[1].tobytes()
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(jpeg[: len(jpeg) // 2] + jpeg[-2:])
    with pytest.raises(ImageError, match=r"photo.jpg is not a readable photo"):
        Photos(photo, ["front"], 1.0).next(0.0)
    bitmap = tmp_path / "photo.bmp"
    cv2.imwrite(str(bitmap), np.full((20, 30, 3), (0, 0, 90), np.uint8))
    assert Photos(bitmap, ["front"], 1.0).next(0.0).images["front"][0, 0].tolist() == [90, 0, 0]


def test_folders_without_photos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="There is no photo"):
        Photos(tmp_path / "none", ["front"], 1.0)
    with pytest.raises(ImageError, match="has no photos"):
        Photos(tmp_path, ["front"], 1.0)
    (tmp_path / "0.jpg").write_bytes(b"broken")
    with pytest.raises(ImageError, match="None of the files"):
        Photos(tmp_path, ["front"], 1.0).next(0.0)
