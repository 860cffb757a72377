"""Tiles that the device cuts equal those of the host; the device is a fake that runs kernels in order."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
from fake_cuda import FakeCuda
from raw_images import noisy_image

from litevlm_ros.backend import CutViews
from litevlm_ros.errors import ImageError
from litevlm_ros.images.decoding import ENCODINGS
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig
from litevlm_ros.runtime.tensorrt import preprocessing
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory
from litevlm_ros.runtime.tensorrt.preprocessing import DeviceTiler, DeviceTiles
from litevlm_ros.types import View
from litevlm_ros.vision.tiling import HostTiler

MODEL = ModelConfig(
    vision=VisionConfig(32, 64, 2, 2, image_size=8, patch_size=2),
    text=TextConfig(48, 80, 3, 6, 2, 8, 1e-6, 1e6, 320, False, 512),
    template="internvl2_5", use_thumbnail=True, max_dynamic_tiles=6,
)  # fmt: skip


class Bench:
    """A tiler on a fake GPU."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.device = CudaDevice()
        self.memory = DeviceMemory(self.device)
        self.tilers: list[DeviceTiler] = []

    def tiler(self, max_tiles: int) -> DeviceTiler:
        self.tilers.append(DeviceTiler(self.device, self.memory, MODEL, max_tiles))
        return self.tilers[-1]

    def read(self, cut: CutViews) -> np.ndarray[Any, Any]:
        """Waits for the tiles and copies them to the host."""
        assert isinstance(cut.tiles, DeviceTiles)
        assert len(cut.tiles) == sum(cut.counts)
        size = len(cut.tiles) * 8 * 8 * 3
        with self.device:
            self.device.wait()
        self.cuda.check_range(cut.tiles.address, size)
        return np.frombuffer(ctypes.string_at(cut.tiles.address, size), np.uint8).reshape(-1, 8, 8, 3)

    def close(self) -> None:
        with self.device:
            for tiler in self.tilers:
                tiler.close()
            self.memory.free()
        self.device.close()
        assert not self.cuda.live


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    cuda = FakeCuda()
    fake_tensorrt.install(monkeypatch, cuda)
    bench = Bench(cuda)
    yield bench
    bench.close()
    fake_tensorrt.forget()


def noise(width: int, height: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def check(bench: Bench, tiler: DeviceTiler, views: list[View], max_tiles: int) -> None:
    expected, cut = HostTiler(MODEL, max_tiles).cut(views), tiler.cut(views)
    assert cut.counts == expected.counts
    np.testing.assert_array_equal(bench.read(cut), expected.tiles)


def test_one_view_on_one_tile(bench: Bench) -> None:
    check(bench, bench.tiler(1), [View("front", noise(13, 9))], 1)


def test_views_of_several_tiles_with_thumbnails_beside_one_without(bench: Bench) -> None:
    views = [View("front", noise(30, 20)), View("left", noise(10, 9)), View("back", noise(9, 40))]
    check(bench, bench.tiler(6), views, 6)


def test_six_views_copied_in_parts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "_LEAST_COPY", 100)
    views = [View(f"camera {seed}", noise(12 + seed, 9, seed)) for seed in range(6)]
    check(bench, bench.tiler(1), views, 1)


def test_arrays_of_any_strides(bench: Bench) -> None:
    tiler = bench.tiler(1)
    image = noise(24, 11)
    for strided in (image[:, ::-1], image[::2], image[:, 3:9], image[..., ::-1]):
        check(bench, tiler, [View("front", strided)], 1)


@pytest.mark.parametrize("encoding", ["bgr8", "uyvy", "yuyv", "nv12", "mono8", "bayer_rggb8", "rgb16", "mono16"])
def test_raw_images_with_padded_rows(bench: Bench, encoding: str) -> None:
    """Encodings that the kernels do not know are decoded before."""
    views = [View("front", noisy_image(encoding, 12, 8, padding)) for padding in (0, 6)]
    check(bench, bench.tiler(1), views, 1)


def test_the_encodings_are_among_those_that_are_known() -> None:
    assert set(ENCODINGS) > preprocessing.TILED_ENCODINGS
    assert all("bayer" in name or "16" in name for name in set(ENCODINGS) - preprocessing.TILED_ENCODINGS)


def test_larger_frames_take_the_place_of_smaller_ones(bench: Bench) -> None:
    tiler = bench.tiler(2)
    pinned = len(bench.cuda.live)
    for width, height, count in ((9, 9, 1), (40, 25, 2), (12, 10, 1), (50, 26, 3)):
        check(bench, tiler, [View("front", noise(width, height, seed)) for seed in range(count)], 2)
        assert len(bench.cuda.live) == pinned, "memory that became too small is still there"
    taken = sum(bench.memory.by_purpose().values())
    check(bench, tiler, [View("front", noise(50, 26))], 2)
    assert sum(bench.memory.by_purpose().values()) == taken


def test_frames_that_follow_at_once_do_not_mix(bench: Bench) -> None:
    """The fake GPU begins nothing before somebody waits, so a frame written over another one shows."""
    tiler = bench.tiler(1)
    image = noise(13, 9)
    first = tiler.cut([View("front", image)])
    expected = HostTiler(MODEL, 1).cut([View("front", image.copy())]).tiles
    image[:] = 0
    np.testing.assert_array_equal(bench.read(first), expected)
    tiler.cut([View("front", noise(13, 9, 1))])
    check(bench, tiler, [View("front", noise(13, 9, 2))], 1)


def test_malformed_images_name_their_camera_and_leave_the_tiler_usable(bench: Bench) -> None:
    tiler = bench.tiler(1)
    good = View("front", noise(9, 9))
    short = replace(noisy_image("bgr8", 9, 9), height=10)
    with pytest.raises(ImageError, match=r"^back: data is too short"):
        tiler.cut([good, View("back", short)])
    with pytest.raises(ImageError, match=r"^back: unknown encoding 'cmyk'"):
        tiler.cut([View("back", replace(short, encoding="cmyk"))])
    with pytest.raises(ImageError, match=r"^back: the image is float64"):
        tiler.cut([View("back", np.zeros((4, 4, 3)))])  # type: ignore[arg-type]
    check(bench, tiler, [good], 1)


def test_an_image_whose_columns_are_endless_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tiler = bench.tiler(1)
    monkeypatch.setattr(preprocessing, "_MOST_MIDDLE_BYTES", 3 * 8 * 30)
    check(bench, tiler, [View("front", noise(2, 30))], 1)
    with pytest.raises(ImageError, match=r"^front: the image is 2x31, too high to be resized on the GPU"):
        tiler.cut([View("front", noise(2, 31))])
