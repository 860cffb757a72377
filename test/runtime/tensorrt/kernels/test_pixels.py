"""The kernel of pixels.cu, run on the host, normalises patches as numpy does in fp32."""

from __future__ import annotations

import numpy as np
import pytest
from host_kernels import run_kernel, with_macros

from litevlm_ros.engines.vision_blocks import patch_width
from litevlm_ros.model_config import VisionConfig
from litevlm_ros.runtime.tensorrt.kernels.module import read_source
from litevlm_ros.runtime.tensorrt.kernels.pixels import pixel_macros
from litevlm_ros.vision.tiling import IMAGENET_MEAN, IMAGENET_STD

CONFIG = VisionConfig(32, 64, 2, 2, image_size=20, patch_size=5)
TILES = 2


def expected(tiles: np.ndarray) -> np.ndarray:
    """fp32 [tiles * (1 + grid²), patch width]."""
    mean, deviation = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    normalised = (tiles.astype(np.float32) / np.float32(255) - mean) / deviation
    grid, patch = CONFIG.grid, CONFIG.patch_size
    patches = normalised.reshape(-1, grid, patch, grid, patch, 3).transpose(0, 1, 3, 5, 2, 4)
    rows = np.zeros((len(tiles), 1 + grid**2, patch_width(CONFIG)), np.float32)
    rows[:, 1:, : 3 * patch**2] = patches.reshape(len(tiles), grid**2, -1)
    return rows.reshape(-1, patch_width(CONFIG))


def to_bf16(values: np.ndarray) -> np.ndarray:
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


@pytest.mark.parametrize("computed", ["fp16", "bf16"])
def test_patches(computed: str) -> None:
    assert patch_width(CONFIG) > 3 * CONFIG.patch_size**2, "so that there are columns to be zero"
    tiles = np.random.default_rng(0).integers(0, 256, (TILES, 20, 20, 3), dtype=np.uint8)
    rows = TILES * (1 + CONFIG.grid**2)
    output = np.full((rows, patch_width(CONFIG)), 0xFFFF, np.uint16)
    source = with_macros(read_source("pixels.cu"), pixel_macros(CONFIG, computed))
    run_kernel(source, "patches", (rows,), (32,), [("P", tiles.ctypes.data), ("P", output.ctypes.data)])
    wanted = expected(tiles)
    bits = to_bf16(wanted) if computed == "bf16" else wanted.astype(np.float16).view(np.uint16)
    np.testing.assert_array_equal(output, bits)


def test_they_are_the_torch_modules() -> None:
    torch = pytest.importorskip("torch", reason="compares with the module that is exported: needs torch")
    from litevlm_ros.convert.intern_vit import InternVisionEncoder

    encoder = InternVisionEncoder(CONFIG, 48)
    with torch.no_grad():
        encoder.patch_embedding.weight[:] = torch.randn_like(encoder.patch_embedding.weight)
        tiles = np.random.default_rng(1).integers(0, 256, (TILES, 20, 20, 3), dtype=np.uint8)
        embedded = encoder.embed(torch.from_numpy(tiles)).numpy()
    weight = encoder.patch_embedding.weight.detach().numpy()
    np.testing.assert_allclose(expected(tiles)[:, : weight.shape[1]] @ weight.T, embedded, atol=1e-4)
