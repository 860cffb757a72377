"""Blocks of cuDNN's products compute what numpy does, with kernels that run on the host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import fake_cudnn
import numpy as np
import pytest
from block_bench import MODEL, TEXT_CONFIG
from fake_cuda import FakeCuda
from product_bench import ProductBench

from litevlm_ros.engines.text_blocks import padded_vocabulary, qkv_width
from litevlm_ros.model_config import TextConfig
from litevlm_ros.model_directory import TEXT
from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.cudnn_library import CudnnRefusal
from litevlm_ros.runtime.tensorrt.device import CudaGraph
from litevlm_ros.runtime.tensorrt.kernels.head import HeadKernel
from litevlm_ros.runtime.tensorrt.kernels.rows import RowKernels
from litevlm_ros.runtime.tensorrt.numbers import from_words, to_words
from litevlm_ros.runtime.tensorrt.text_products import HeadProducts, MlpProducts, PackedHead, QkvProducts

CONFIG = TEXT_CONFIG
ROWS = (1, 3, 40)


class Bench(ProductBench):
    """Makes the text decoder's blocks."""

    def block(self, kind: Any, rows: int, computed: str, config: TextConfig = CONFIG) -> Block:
        kernels = self.keep(RowKernels(self.device, config, computed))
        block = kind(self.cudnn, kernels, config, computed, rows, self.scratch)
        assert isinstance(block, Block)
        return block


@pytest.fixture
def bench(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(fake_cudnn.install(monkeypatch, cuda))
    yield bench
    bench.close()


def verdict(bench: Bench, name: str, kind: Any, rows: int, computed: str) -> str:
    with bench.device:
        return bench.verdict(TEXT, MODEL, name, rows, bench.block(kind, rows, computed), computed)


@pytest.mark.parametrize("computed", ["fp16", "bf16"])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("name", "kind"), [("qkv", QkvProducts), ("mlp", MlpProducts)])
def test_a_layer_is_what_numpy_computes(bench: Bench, name: str, kind: Any, rows: int, computed: str) -> None:
    assert verdict(bench, name, kind, rows, computed) == ""


@pytest.mark.parametrize("computed", ["fp16", "bf16"])
def test_heads_are_normalised_as_numpy_does(bench: Bench, computed: str) -> None:
    """Queries are wider than rows, as Qwen3's are."""
    config = replace(CONFIG, head_dim=32, qkv_bias=False, qk_norm=True)
    with bench.device:
        block = bench.block(QkvProducts, 3, computed, config)
        assert bench.verdict(TEXT, replace(MODEL, text=config), "qkv", 3, block, computed) == ""


@pytest.mark.parametrize(("name", "kind"), [("qkv", QkvProducts), ("mlp", MlpProducts)])
def test_wrong_products_are_noticed(bench: Bench, name: str, kind: Any) -> None:
    bench.fake.multiplies_wrong = True
    assert "nonsense" in verdict(bench, name, kind, 3, "fp16")


def hold_logits(bench: Bench, block: Block, rows: int, computed: str, given: dict[str, Any], head: Any) -> None:
    """Runs a block 'head' on rows and what is `given` of the head, whose numbers are `head` [V, H] in float64."""
    rng = np.random.default_rng(rows)
    total, change = (rng.standard_normal((rows, CONFIG.hidden_size)).astype(np.float32) for _ in range(2))
    norm = rng.standard_normal(CONFIG.hidden_size).astype(np.float32)
    every = {"sum": total, "change": change, "norm": norm, **given}
    addresses = {name: bench.upload(array) for name, array in every.items()}
    addresses["logits"] = bench.memory.allocate("test", 2 * rows * len(head))
    block.enqueue(addresses)
    bench.device.wait()
    words = bench.memory.read(addresses["logits"], (rows, len(head)), np.uint16)
    wide = (total + change).astype(np.float64)
    normalised = wide / np.sqrt(np.square(wide).mean(-1, keepdims=True) + CONFIG.rms_norm_eps) * norm
    expected = normalised @ head.T
    error = np.linalg.norm(from_words(words, computed) - expected) / np.linalg.norm(expected)
    assert error < {"fp16": 1e-3, "bf16": 8e-3}[computed]


@pytest.mark.parametrize("computed", ["fp16", "bf16"])
@pytest.mark.parametrize("rows", ROWS)
def test_logits_are_what_numpy_computes(bench: Bench, rows: int, computed: str) -> None:
    shape = padded_vocabulary(CONFIG), CONFIG.hidden_size
    head = to_words(np.random.default_rng(1).standard_normal(shape), computed)
    with bench.device:
        block = bench.block(HeadProducts, rows, computed)
        hold_logits(bench, block, rows, computed, {"head": head}, from_words(head, computed).astype(np.float64))


@pytest.mark.parametrize("rows", [1, 4, 5, 16])
def test_logits_by_a_packed_head_are_what_numpy_computes(bench: Bench, rows: int) -> None:
    rng, shape = np.random.default_rng(2), (padded_vocabulary(CONFIG), CONFIG.hidden_size)
    head, scales = rng.integers(-127, 128, shape).astype(np.int8), rng.uniform(0.5, 1, shape[0]).astype(np.float16)
    with bench.device:
        kernels, product = (bench.keep(each(bench.device, CONFIG, "fp16")) for each in (RowKernels, HeadKernel))
        block = PackedHead(product, kernels, CONFIG, rows, bench.scratch)
        wide = head * scales.astype(np.float64)[:, None]
        hold_logits(bench, block, rows, "fp16", {"head": head, "head.scale": scales}, wide)


@pytest.mark.parametrize("rows", [1, 40])
def test_an_mlp_beyond_the_largest_number_of_fp16_stays_finite(bench: Bench, rows: int) -> None:
    """An MLP's addition to the sum over the layers is fp32, in every size."""
    width, inner = CONFIG.hidden_size, CONFIG.intermediate_size
    shapes = {"o_proj": (width, width), "gate_up": (2 * inner, width), "attention": (rows, width)}
    with bench.device:
        given = {name: to_words(np.full(shape, 0.1), "fp16") for name, shape in shapes.items()}
        given["down"] = to_words(np.full((width, inner), 6e4), "fp16")
        given["post_norm"], given["residual"] = np.ones(width, np.float32), np.ones((rows, width), np.float32)
        addresses = {name: bench.upload(array) for name, array in given.items()}
        for name in ("sum", "change"):
            addresses[name] = bench.memory.allocate("test", 4 * rows * width)
        bench.block(MlpProducts, rows, "fp16").enqueue(addresses)
        bench.device.wait()
        change = bench.memory.read(addresses["change"], (rows, width), np.float32)
    assert np.isfinite(change).all()
    assert change.min() > np.finfo(np.float16).max


def test_working_memory_is_shared_and_may_move_between_recordings(bench: Bench) -> None:
    """A larger block moves it; what is recorded anew then runs at the new place."""
    rows = 3
    with bench.device:
        small = bench.block(QkvProducts, rows, "fp16")
        before = bench.scratch.address
        given = {
            "sum": np.ones((rows, CONFIG.hidden_size), np.float32),
            "change": np.zeros((rows, CONFIG.hidden_size), np.float32),
            "input_norm": np.ones(CONFIG.hidden_size, np.float32),
            "qkv_weight": to_words(np.ones((qkv_width(CONFIG), CONFIG.hidden_size)), "fp16"),
            "qkv_bias": np.full((1, qkv_width(CONFIG)), 0.5, np.float32),
        }
        addresses = {name: bench.upload(array) for name, array in given.items()}
        addresses["residual"] = bench.memory.allocate("test", 4 * rows * CONFIG.hidden_size)
        addresses["qkv"] = bench.memory.allocate("test", 2 * rows * qkv_width(CONFIG))
        bench.block(MlpProducts, 400, "fp16")
        assert bench.scratch.address != before
        graph = CudaGraph(bench.device, lambda: small.enqueue(addresses))
        graph.launch()
        bench.device.wait()
        found = bench.memory.read(addresses["qkv"], (rows, qkv_width(CONFIG)), np.uint16)
        graph.close()
    np.testing.assert_allclose(from_words(found, "fp16"), CONFIG.hidden_size + 0.5, rtol=1e-3)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (QkvProducts, replace(CONFIG, hidden_size=100)),
        (MlpProducts, replace(CONFIG, intermediate_size=164)),
        (HeadProducts, replace(CONFIG, hidden_size=100)),
    ],
)
def test_rows_that_cannot_be_read_in_whole_words_are_refused(bench: Bench, kind: Any, config: TextConfig) -> None:
    with bench.device, pytest.raises(CudnnRefusal, match="no multiple of the 8"):
        bench.block(kind, 2, "fp16", config)


def test_a_refusal_names_the_operation(bench: Bench) -> None:
    bench.fake.refuses = {2: "no engine for this"}
    with bench.device, pytest.raises(CudnnRefusal, match=r"no kernel for a matrix product: no engine for this$"):
        bench.block(QkvProducts, 2, "fp16")
