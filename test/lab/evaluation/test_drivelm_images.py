from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from litevlm_ros.errors import ConfigError, ImageError
from litevlm_ros.images.decoding import as_rgb
from litevlm_ros.lab.evaluation.drivelm_file import KeyFrame, LeftOut
from litevlm_ros.lab.evaluation.drivelm_images import ImageFolder, read_views, with_images

NAMED = Path("questions.json")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with one picture, blue at the left and red at the right."""
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:, :30, 0] = picture[:, 30:, 2] = 255
    (tmp_path / "nuscenes" / "samples" / "CAM_BACK").mkdir(parents=True)
    assert cv2.imwrite(str(tmp_path / "nuscenes" / "samples" / "CAM_BACK" / "a.jpg"), picture)
    return tmp_path


@pytest.mark.parametrize(
    "path",
    [
        "../nuscenes/samples/CAM_BACK/a.jpg",
        "..\\nuscenes\\samples\\CAM_BACK\\a.jpg",
        "D:\\data\\nuscenes\\samples\\CAM_BACK\\a.jpg",
        "/somebody/data/nuscenes/samples/CAM_BACK/a.jpg",
        "elsewhere/a.jpg",
        "a.jpg",
    ],
)
@pytest.mark.parametrize("folder", [".", "nuscenes", "nuscenes/samples", "nuscenes/samples/CAM_BACK"])
def test_a_picture_is_found_from_wherever_the_folder_begins(folder: str, path: str, pictures: Path) -> None:
    found = ImageFolder(pictures / folder).find(path)
    assert found is not None
    assert found.samefile(pictures / "nuscenes/samples/CAM_BACK/a.jpg")


@pytest.mark.parametrize("path", ["", "..", "/", "b.jpg", "CAM_BACK", "a.jpg\0", "x" * 5000, "\ud800.jpg", "\x1b[2J"])
def test_what_is_no_picture_is_not_found(path: str, pictures: Path) -> None:
    assert ImageFolder(pictures / "nuscenes" / "samples").find(path) is None


def test_nothing_outside_the_folder_is_read(pictures: Path) -> None:
    (pictures / "secret.jpg").touch()
    inside = ImageFolder(pictures / "nuscenes")
    assert inside.find("../secret.jpg") is None
    assert inside.find(str(pictures / "secret.jpg")) is None


def test_a_key_frame_needs_all_of_its_pictures(pictures: Path) -> None:
    whole = KeyFrame("whole", {"back": "samples/CAM_BACK/a.jpg"}, ())
    part = KeyFrame("part", {"back": "samples/CAM_BACK/a.jpg", "front": "samples/CAM_FRONT/b\x1b.jpg"}, ())
    left_out, folder = LeftOut(), ImageFolder(pictures)
    assert [frame.id for frame in with_images([part, whole, part], folder, NAMED, left_out)] == ["whole"]
    assert left_out.lines() == [
        "Left out, key frames without all of their pictures: 2 (the first: samples/CAM_FRONT/b\\x1b.jpg)"
    ]
    with pytest.raises(ConfigError, match=r"no key frame of questions.json has all.*'samples/CAM_FRONT/b\\x1b.jpg'"):
        with_images([part], folder, NAMED, LeftOut())


def test_a_folder_that_is_none_is_explained(pictures: Path) -> None:
    with pytest.raises(ConfigError, match=r"--images: .*nowhere is no folder"):
        ImageFolder(pictures / "nowhere")


def test_pictures_are_read_as_rgb_and_damage_names_the_file(pictures: Path) -> None:
    file = pictures / "nuscenes/samples/CAM_BACK/a.jpg"
    frame = KeyFrame("f", {"back": str(file)}, ())
    (view,) = read_views(frame)
    assert (view.camera, view.frame) == ("back", None)
    image = as_rgb(view.image)
    assert image.shape == (40, 60, 3)
    assert (image[20, 5, 2], image[20, 55, 0]) > (200, 200)
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ImageError, match=r"a\.jpg: "):
        read_views(frame)
    file.unlink()
    with pytest.raises(ImageError, match=r"a\.jpg: "):
        read_views(frame)
