from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from litevlm_ros.errors import ImageError
from litevlm_ros.lab.demo.pictures import Pictures


def test_without_any_the_street_is_rendered() -> None:
    pictures = Pictures()
    assert pictures.rendered
    assert pictures.options == []
    pictures.check()
    source = pictures.open(("front",), size=(64, 48))
    assert source.next(0.0).images["front"].shape == (48, 64, 3)
    source.close()


def test_options_name_files_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Pictures(video=Path("a.mp4")).options == ["--video", str(tmp_path / "a.mp4")]
    assert Pictures(photos=Path("a.jpg")).options == ["--photos", str(tmp_path / "a.jpg")]
    assert Pictures(device="0").options == ["--device", "0"]


def test_a_check_reads_a_first_image(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.zeros((20, 30, 3), np.uint8))
    Pictures(photos=photo).check()
    photo.write_bytes(b"broken")
    for pictures, message in (
        (Pictures(photos=photo), "is not a readable photo"),
        (Pictures(video=photo), "cannot"),
        (Pictures(device="/nowhere/video0"), "no camera /nowhere/video0"),
    ):
        with pytest.raises(ImageError, match=message):
            pictures.check()
