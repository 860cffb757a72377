"""The vision encoder up to execution: plans and GPU are fakes that compute with ONNX Runtime and run in order."""

from __future__ import annotations

import gc
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backends import PIXELS, on_cpu, on_host, tiles
from fake_cuda import FakeCuda
from weight_damage import set_number

from litevlm_ros.backend import Backend
from litevlm_ros.errors import EngineError, NotFiniteError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.types import View


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_tiles_are_encoded_as_by_onnxruntime(backend: Backend, directory: Path, cuda: FakeCuda, count: int) -> None:
    """7 tiles are more than the engine takes at once."""
    backend.vision.encode(tiles(count)[::-1])  # which must leave nothing behind
    before = cuda.launches
    tokens = backend.vision.encode(tiles(count))
    assert cuda.launches - before == -(-count // 3), "one graph for each call of the engine"
    assert tokens.count == 4 * count
    expected = on_cpu(directory).vision.encode(tiles(count)).rows  # type: ignore[attr-defined]
    error = on_host(backend, tokens).astype(np.float32) - expected
    assert np.linalg.norm(error) < 5e-3 * np.linalg.norm(expected)


def test_a_tile_is_the_same_beside_any_others(backend: Backend) -> None:
    """Seven tiles run as three, three and one."""
    alone = [on_host(backend, backend.vision.encode(tiles(7)[place : place + 1])) for place in range(7)]
    together = on_host(backend, backend.vision.encode(tiles(7)))
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=0, atol=5e-3 * np.abs(together).max())


def test_tiles_that_were_cut_on_the_device_are_those_of_the_host(backend: Backend, directory: Path) -> None:
    model = ModelConfig.from_directory(directory)
    assert backend.tiler is not None
    tiler = backend.tiler(model, 2)
    image = np.random.default_rng(4).integers(0, 256, (56, 112, 3), np.uint8)
    cut = tiler.cut([View("front", image), View("back", PIXELS[0])])
    assert cut.counts == (3, 1), "two tiles with a thumbnail, and one"
    found = on_host(backend, backend.vision.encode(cut.tiles))
    on_device = backend.vision.encode(np.concatenate((image.reshape(56, 2, 56, 3).swapaxes(0, 1), PIXELS)))
    expected = on_host(backend, on_device)
    np.testing.assert_array_equal(found[[*range(8), *range(12, 16)]], expected)


def test_parts_of_tokens_are_joined_on_the_device(backend: Backend) -> None:
    tokens, one = backend.vision.encode(tiles(3)), backend.vision.encode(tiles(1))
    joined = backend.vision.join([tokens.part(8, 12), one, tokens.part(2, 9).part(1, 3)])
    assert joined.count == 4 + 4 + 2
    rows, row = (on_host(backend, each) for each in (tokens, one))
    np.testing.assert_array_equal(on_host(backend, joined), np.concatenate([rows[8:12], row, rows[3:5]]))


def test_a_part_keeps_the_memory_of_the_whole(backend: Backend) -> None:
    whole = backend.vision.encode(tiles(3))
    expected = on_host(backend, whole)[4:8]
    part = whole.part(4, 8)
    del whole
    gc.collect()
    backend.vision.encode(tiles(3)[::-1])
    np.testing.assert_array_equal(on_host(backend, part), expected)


def test_tokens_keep_their_memory_as_long_as_they_live(backend: Backend) -> None:
    first = backend.vision.encode(tiles(2))
    held = on_host(backend, first)
    addresses = {backend.vision.encode(tiles(2)[::-1]).address for _ in range(5)}  # type: ignore[attr-defined]
    assert len(addresses) == 1, "memory that nobody holds is used again"
    assert first.address not in addresses  # type: ignore[attr-defined]
    np.testing.assert_array_equal(on_host(backend, first), held)


@pytest.mark.parametrize(
    ("pixels", "shape"), [(PIXELS[:, :28, :28], r"\[1, 28, 28, 3\]"), (PIXELS[:0], r"\[0, 56, 56, 3\]")]
)
def test_other_tiles_are_refused(backend: Backend, pixels: Any, shape: str) -> None:
    with pytest.raises(EngineError, match=rf"takes tiles of \[56, 56, 3\], not {shape} pixels"):
        backend.vision.encode(pixels)


def test_tokens_that_are_not_finite_are_refused_and_later_ones_are_the_same(backend: Backend, cuda: FakeCuda) -> None:
    vision: Any = backend.vision
    for count in (1, 5):
        before = on_host(backend, vision.encode(tiles(count)))
        with set_number(vision._weights, "fc2"):
            for _ in range(2):
                with pytest.raises(NotFiniteError, match=r"^the vision encoder: its visual tokens are infinite or NaN"):
                    vision.encode(tiles(count))
        np.testing.assert_array_equal(on_host(backend, vision.encode(tiles(count))), before)
    assert cuda.depth == 0


def test_one_bad_call_of_several_is_noticed(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six tiles run as twice three, of which the first are bad."""
    vision: Any = backend.vision
    vision.encode(tiles(3))
    (program, _), calls = vision._programs[3], [set_number(vision._weights, "fc2"), nullcontext()]
    run = program.run

    def run_with_damage() -> None:
        with calls.pop(0):
            run()
            vision._device.wait()

    monkeypatch.setattr(program, "run", run_with_damage)
    with pytest.raises(NotFiniteError):
        vision.encode(tiles(6))
    assert not calls


def test_the_first_image_need_not_wait_for_a_program(backend: Backend) -> None:
    vision: Any = backend.vision
    made = dict(vision._programs)
    assert list(made) == [1]
    vision.encode(PIXELS)
    assert vision._programs == made
