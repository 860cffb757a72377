"""Tiles that are cut on the GPU, against Pillow and OpenCV on the host: at most 1 of 255 apart."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gpu_bench import say
from internvl2_1b import INTERNVL2_1B
from raw_images import noisy_image

from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.tiling import TILED_ENCODINGS
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory
from litevlm_ros.runtime.tensorrt.preprocessing import DeviceTiler
from litevlm_ros.types import View
from litevlm_ros.vision.tiling import HostTiler

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def device() -> Iterator[CudaDevice]:
    with contextlib.closing(CudaDevice(spin=True)) as device:
        yield device


@pytest.fixture(scope="module", params=[1, 12])
def tiler(request: pytest.FixtureRequest, device: CudaDevice) -> Iterator[tuple[DeviceTiler, HostTiler]]:
    """A tiler on the device and one on the host, for views in one tile and in up to twelve."""
    with device:
        memory = DeviceMemory(device)
    tiler = DeviceTiler(device, memory, INTERNVL2_1B, request.param)
    yield tiler, HostTiler(INTERNVL2_1B, request.param)
    with device:
        device.wait()
        tiler.close()
        memory.free()


def cut(tiler: DeviceTiler, device: CudaDevice, views: list[View]) -> tuple[Any, tuple[int, ...]]:
    """Returns the tiles uint8 [N, 448, 448, 3] and the number of each view."""
    found = tiler.cut(views)
    with device:
        tiles = DeviceMemory(device).read(found.tiles.address, (len(found.tiles), 448, 448, 3), np.uint8)
    return tiles, found.counts


@pytest.mark.parametrize("encoding", sorted(TILED_ENCODINGS))
def test_tiles_are_those_of_the_host(device: CudaDevice, tiler: tuple[DeviceTiler, HostTiler], encoding: str) -> None:
    views = [View("front", noisy_image(encoding, 1280, 720)), View("rear", noisy_image(encoding, 502, 700, 0, seed=1))]
    on_device, on_host = tiler
    expected = on_host.cut(views)
    tiles, counts = cut(on_device, device, views)
    assert counts == expected.counts
    apart = np.abs(tiles.astype(np.int16) - expected.tiles)
    say(f"{encoding}, {len(tiles)} tiles: at most {apart.max()} of 255 apart, {(apart > 0).mean():.1e} of all numbers")
    assert apart.max() <= 1
