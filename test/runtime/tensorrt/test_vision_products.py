"""The vision encoder's blocks of cuDNN's products compute what numpy does, with kernels that run on the host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import fake_cudnn
import numpy as np
import pytest
from block_bench import MODEL
from fake_cuda import FakeCuda
from product_bench import ProductBench

from litevlm_ros.engines.vision_blocks import PROJECTOR_EPS, patch_width
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import VISION
from litevlm_ros.runtime.tensorrt.attention_reference import relative_error
from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.cudnn_library import CudnnRefusal
from litevlm_ros.runtime.tensorrt.kernels.vision_rows import VisionRowKernels
from litevlm_ros.runtime.tensorrt.numbers import from_words, to_words
from litevlm_ros.runtime.tensorrt.vision_products import MlpProducts, PatchProducts, ProjectorProducts, QkvProducts

CONFIG = MODEL.vision
TILE = 1 + CONFIG.grid**2
TOLERANCES = {"fp16": 2e-3, "bf16": 1.6e-2}
RANDOM = np.random.default_rng(3)


class Bench(ProductBench):
    """Makes and runs the vision encoder's blocks."""

    def block(self, kind: Any, rows: int, computed: str, model: ModelConfig = MODEL) -> Block:
        kernels = self.keep(VisionRowKernels(self.device, model.vision, computed))
        block = kind(self.cudnn, kernels, model, computed, rows, self.scratch)
        assert isinstance(block, Block)
        return block

    def run(self, kind: Any, rows: int, computed: str, given: dict[str, Any], output: str, shape: Any) -> Any:
        """Runs a block on arrays. Returns the words of one of its outputs, or its floats if that is the sum."""
        kept = np.float32 if output == "sum" else np.uint16
        with self.device:
            addresses = {name: self.upload(array) for name, array in given.items()}
            addresses[output] = self.memory.allocate("test", int(np.prod(shape)) * np.dtype(kept).itemsize)
            self.block(kind, rows, computed).enqueue(addresses)
            return self.memory.read(addresses[output], shape, kept)


@pytest.fixture
def bench(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(fake_cudnn.install(monkeypatch, cuda))
    yield bench
    bench.close()


def verdict(bench: Bench, name: str, kind: Any, tiles: int, computed: str, model: ModelConfig = MODEL) -> str:
    rows = tiles * TILE
    with bench.device:
        return bench.verdict(VISION, model, name, rows, bench.block(kind, rows, computed, model), computed)


@pytest.mark.parametrize("computed", ["fp16", "bf16"])
@pytest.mark.parametrize("tiles", [1, 3])
@pytest.mark.parametrize(("name", "kind"), [("qkv", QkvProducts), ("mlp", MlpProducts)])
def test_a_layer_is_what_numpy_computes(bench: Bench, name: str, kind: Any, tiles: int, computed: str) -> None:
    assert verdict(bench, name, kind, tiles, computed) == ""


def test_queries_keys_and_values_need_no_bias(bench: Bench) -> None:
    model = replace(MODEL, vision=replace(CONFIG, qkv_bias=False))
    assert verdict(bench, "qkv", QkvProducts, 1, "fp16", model) == ""


@pytest.mark.parametrize(("name", "kind"), [("qkv", QkvProducts), ("mlp", MlpProducts)])
def test_wrong_products_are_noticed(bench: Bench, name: str, kind: Any) -> None:
    bench.fake.multiplies_wrong = True
    assert "nonsense" in verdict(bench, name, kind, 1, "fp16")


def numbers(computed: str, *shape: int) -> tuple[Any, Any]:
    """Words, and what they stand for in float64."""
    words = to_words(RANDOM.standard_normal(shape), computed)
    return words, from_words(words, computed).astype(np.float64)


def floats(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("computed", ["fp16", "bf16"])
@pytest.mark.parametrize("tiles", [1, 2])
def test_patches_are_multiplied_and_placed(bench: Bench, tiles: int, computed: str) -> None:
    rows, width = tiles * TILE, CONFIG.hidden_size
    (patches, wide_patches), (weight, wide_weight) = (
        numbers(computed, count, patch_width(CONFIG)) for count in (rows, width)
    )
    positions = floats(TILE, width)
    given = {"patches": patches, "patch_embedding": weight, "positions": positions}
    found = bench.run(PatchProducts, rows, computed, given, "sum", (rows, width))
    expected = wide_patches @ wide_weight.T + np.tile(positions, (tiles, 1))
    assert relative_error(found.astype(np.float64), expected) < 1e-5


@pytest.mark.parametrize("computed", ["fp16", "bf16"])
@pytest.mark.parametrize("tiles", [1, 2])
def test_visual_tokens_are_what_numpy_computes(bench: Bench, tiles: int, computed: str) -> None:
    rows, width, inner, text = tiles * TILE, CONFIG.hidden_size, CONFIG.projector_size, MODEL.text.hidden_size
    total, (change, wide_change) = floats(rows, width), numbers(computed, rows, width)
    (first, wide_first), (second, wide_second) = numbers(computed, text, inner), numbers(computed, text, text)
    norm, shift = floats(inner), floats(inner)
    biases = [floats(1, text) for _ in range(2)]
    stored = [to_words(bias, "bf16") if computed == "bf16" else bias for bias in biases]
    given = {
        "sum": total, "change": change, "norm_weight": norm, "norm_bias": shift, "projector1": first,
        "projector1_bias": stored[0], "projector2": second, "projector2_bias": stored[1],
    }  # fmt: skip
    tokens = tiles * CONFIG.tokens_per_tile
    words = bench.run(ProjectorProducts, rows, computed, given, "visual_tokens", (tokens, text))
    patches = (total + wide_change).reshape(tiles, TILE, width)[:, 1:].reshape(tiles, 2, 2, 2, 2, width)
    folded = patches.transpose(0, 1, 3, 2, 4, 5).reshape(tokens, inner)
    centred = folded - folded.mean(-1, keepdims=True)
    normalised = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + PROJECTOR_EPS) * norm + shift
    hidden = normalised @ wide_first.T + biases[0]
    active = hidden / (1 + np.exp(-2 * hidden * (0.80015 + 0.03470415 * np.square(hidden))))
    expected = active @ wide_second.T + biases[1]
    assert relative_error(from_words(words, computed).astype(np.float64), expected) < TOLERANCES[computed]


def test_working_memory_is_shared(bench: Bench) -> None:
    with bench.device:
        bench.block(MlpProducts, TILE, "fp16")
        size = bench.memory.by_purpose()["working memory"]
        bench.block(QkvProducts, TILE, "fp16")
        assert bench.memory.by_purpose()["working memory"] == size


def test_rows_that_are_not_whole_words_are_left_to_plans(bench: Bench) -> None:
    narrow = replace(MODEL, vision=replace(CONFIG, hidden_size=60))
    with bench.device, pytest.raises(CudnnRefusal, match="no multiple of the 8"):
        bench.block(QkvProducts, TILE, "fp16", narrow)
