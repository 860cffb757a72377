"""Attention is right by cuDNN and by TensorRT, and whatever computes nonsense is noticed before it is used."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import fake_cudnn
import fake_tensorrt
import numpy as np
import onnxruntime
import pytest
from fake_cuda import FakeCuda
from fake_cudnn import FakeCudnn

from litevlm_ros.engines.attention_blocks import text_attention, vision_attention
from litevlm_ros.engines.block_graph import BlockGraph
from litevlm_ros.engines.text_blocks import qkv_width
from litevlm_ros.errors import EngineError
from litevlm_ros.model_config import TextConfig, VisionConfig
from litevlm_ros.runtime.tensorrt.attention import TextAttention, VisionAttention
from litevlm_ros.runtime.tensorrt.device import CudaDevice, CudaGraph
from litevlm_ros.runtime.tensorrt.engine_attention import MOST_ROWS
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory
from litevlm_ros.runtime.tensorrt.numbers import from_words, to_words

VISION = VisionConfig(64, 128, 2, 4, 56, 14)
"""4 x 4 patches, so a tile has 17 rows."""
TEXT = TextConfig(96, 128, 2, 6, 2, 16, 1e-6, 1e6, 100, True, 4096)
"""Three heads share each of two key heads."""
CAPACITY = 320
TILE_ROWS = 17


class Block:
    """A plan that ONNX Runtime runs on the fake GPU's memory."""

    def __init__(self, plans: Plans, graph: BlockGraph, sizes: Mapping[str, int]) -> None:
        self._plans, self._graph, self._sizes = plans, graph, sizes
        self._session = onnxruntime.InferenceSession(graph.serialized(), providers=["CPUExecutionProvider"])

    def enqueue(self, addresses: Mapping[str, int]) -> None:
        assert all(address % 256 == 0 for address in addresses.values()), "TensorRT wants aligned addresses"
        self._plans.device.stream.enqueue(lambda: self._run(dict(addresses)))

    def _run(self, addresses: dict[str, int]) -> None:
        arrays = {}
        for tensor in (*self._graph.activations, *self._graph.outputs):
            shape = [self._sizes[size] if isinstance(size, str) else size for size in tensor.shape]
            dtype = np.dtype(np.int32 if tensor.type == "int32" else np.float16)
            arrays[tensor.name] = memory_at(self._plans.cuda, addresses.pop(tensor.name), shape, dtype)
        assert not addresses
        output = arrays.pop("output")
        output[...] = self._session.run(["output"], arrays)[0]
        if self._plans.wrong:
            output[...] = output[..., ::-1]


@dataclass
class Plans:
    """A stand-in for what BlockPlans does for attention."""

    cuda: FakeCuda
    device: CudaDevice
    graph: BlockGraph
    wrong: bool = False
    made: list[tuple[int, int]] = field(default_factory=list)
    """The rows and columns of each plan, in the order in which they were asked for."""

    def block(self, name: str, rows: int, columns: int = 0) -> Block:
        assert name == self.graph.name
        self.made.append((rows, columns))
        return Block(self, self.graph, {"R": rows, "C": columns})


@dataclass
class Bench:
    """A fake GPU with cuDNN."""

    cuda: FakeCuda
    cudnn: FakeCudnn
    device: CudaDevice
    memory: DeviceMemory

    def vision(self, computed: str = "fp16") -> tuple[VisionAttention, Plans]:
        plans = Plans(self.cuda, self.device, vision_attention(VISION, computed))
        return VisionAttention(self.device, self.memory, plans, VISION, computed), plans  # type: ignore[arg-type]

    def text(self, computed: str = "fp16", config: TextConfig = TEXT) -> tuple[TextAttention, Plans]:
        plans = Plans(self.cuda, self.device, text_attention(config, computed))
        attention = TextAttention(self.device, self.memory, plans, config, computed, CAPACITY)  # type: ignore[arg-type]
        return attention, plans

    def array(self, numbers: Any) -> int:
        """Puts an array into device memory."""
        address = self.memory.allocate("test", numbers.nbytes)
        self.memory.write(address, numbers)
        return address


def memory_at(cuda: FakeCuda, address: int, shape: Any, dtype: Any) -> Any:
    """A view of device memory."""
    size = int(np.prod(shape)) * dtype.itemsize
    cuda.check_range(address, size)
    block = next(block for start, block in cuda.live.items() if start <= address < start + block.size)
    whole = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_uint8 * block.size).from_address(block.address))
    offset = address - block.address
    return whole[offset : offset + size].view(dtype).reshape(shape)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    cuda = FakeCuda()
    fake_tensorrt.install(monkeypatch, cuda)
    cudnn = fake_cudnn.install(monkeypatch, cuda)
    device = CudaDevice()
    with device:
        memory = DeviceMemory(device)
        yield Bench(cuda, cudnn, device, memory)
        memory.free()
    device.close()
    fake_tensorrt.forget()
    assert not cudnn.handles, "a handle of cuDNN was not given back"
    assert not cuda.live


def softmax(scores: Any) -> Any:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def vision_reference(qkv: Any, tiles: int) -> Any:
    """Attention of qkv [tiles * rows, 3 * width], written down a second time."""
    heads, size = VISION.num_heads, VISION.hidden_size // VISION.num_heads
    queries, keys, values = qkv.reshape(tiles, TILE_ROWS, 3, heads, size).transpose(2, 0, 3, 1, 4)
    mixed = softmax(queries @ keys.swapaxes(-1, -2) / np.sqrt(size)) @ values
    return mixed.swapaxes(1, 2).reshape(tiles * TILE_ROWS, -1)


def text_reference(qkv: Any, keys: Any, values: Any, new: int, valid: int, config: TextConfig) -> Any:
    """Attention of the first `new` rows, with keys and values repeated and a mask."""
    heads, size = config.num_heads, config.head_dim
    queries = qkv[:new, : heads * size].reshape(new, heads, size).swapaxes(0, 1)
    keys, values = (np.repeat(each[:valid].swapaxes(0, 1), heads // config.num_kv_heads, 0) for each in (keys, values))
    seen = np.arange(valid) <= valid - new + np.arange(new)[:, None]
    scores = np.where(seen, queries @ keys.swapaxes(1, 2) / np.sqrt(size), -np.inf)
    return (softmax(scores) @ values).swapaxes(0, 1).reshape(new, heads * size)


def sample(shape: tuple[int, ...], computed: str, seed: int) -> tuple[Any, Any]:
    """Bits, and the numbers that they stand for in fp64."""
    words = to_words(np.random.default_rng(seed).standard_normal(shape, np.float32), computed)
    return words, from_words(words, computed).astype(np.float64)


def run_vision(bench: Bench, attention: VisionAttention, tiles: int, computed: str = "fp16") -> float:
    """The relative error of the kernel for `tiles`."""
    words, numbers = sample((tiles * TILE_ROWS, 3 * VISION.hidden_size), computed, tiles)
    output = bench.array(np.zeros((len(words), VISION.hidden_size), np.uint16))
    attention.make(tiles).enqueue(bench.array(words), output)
    found = from_words(bench.memory.read(output, (len(words), VISION.hidden_size), np.uint16), computed)
    expected = vision_reference(numbers, tiles)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def run_text(
    bench: Bench,
    attention: TextAttention,
    rows: int,
    cases: list[tuple[int, int]],
    computed: str = "fp16",
    config: TextConfig = TEXT,
) -> list[float]:
    """The relative errors of one kernel of `rows` for each case of new tokens and valid rows."""
    width, cache = config.num_heads * config.head_dim, (CAPACITY, config.num_kv_heads, config.head_dim)
    (qkv, queries), (keys, wide_keys), (values, wide_values) = (
        sample(shape, computed, seed) for seed, shape in enumerate(((rows, qkv_width(config)), cache, cache))
    )
    output = bench.array(np.zeros((rows, width), np.uint16))
    lengths = bench.array(np.zeros(2, np.int32))
    addresses = [bench.array(each) for each in (qkv, keys, values)]
    kernel = attention.make(rows)
    errors = []
    for new, valid in cases:
        bench.memory.write(lengths, np.array([new, valid], np.int32))
        kernel.enqueue(addresses[0], addresses[1], addresses[2], lengths, output)
        found = from_words(bench.memory.read(output, (rows, width), np.uint16), computed)
        assert np.isfinite(found).all(), "rows beyond the new tokens are finite"
        expected = text_reference(queries, wide_keys, wide_values, new, valid, config)
        errors.append(float(np.linalg.norm(found[:new] - expected) / np.linalg.norm(expected)))
    return errors


LIMITS = {"fp16": 1e-3, "bf16": 5e-3}
CASES = {
    1: [(1, 1), (1, 2), (1, 200), (1, CAPACITY)],
    16: [(1, 1), (5, 5), (16, 16), (3, 100), (16, CAPACITY)],
    300: [(300, 300), (7, 8), (299, 310), (300, CAPACITY)],
}
"""Rows of a kernel → new tokens and valid rows."""


@pytest.mark.parametrize("computed", ["fp16", "bf16"])
@pytest.mark.parametrize("tiles", [1, 3])
def test_cudnn_computes_vision_attention(bench: Bench, tiles: int, computed: str) -> None:
    attention, plans = bench.vision(computed)
    assert run_vision(bench, attention, tiles, computed) < LIMITS[computed]
    assert bench.cudnn.built == 1
    assert not plans.made, "no plan is made where cuDNN is right"
    attention.close()


@pytest.mark.parametrize("computed", ["fp16", "bf16"])
@pytest.mark.parametrize("rows", CASES)
def test_cudnn_computes_text_attention_for_all_lengths(bench: Bench, rows: int, computed: str) -> None:
    attention, plans = bench.text(computed)
    assert max(run_text(bench, attention, rows, CASES[rows], computed)) < LIMITS[computed]
    assert bench.cudnn.built == 1
    assert not plans.made
    attention.close()


@pytest.mark.parametrize("tiles", [1, 3])
def test_tensorrt_computes_vision_attention(bench: Bench, tiles: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cudnn.remove(monkeypatch)
    attention, plans = bench.vision()
    assert run_vision(bench, attention, tiles) < LIMITS["fp16"]
    assert plans.made == [(tiles * TILE_ROWS, 0)], "17 rows of 64 numbers are not aligned, so tiles run at once"
    attention.close()


def test_tensorrt_computes_one_tile_at_a_time_where_addresses_allow_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cudnn.remove(monkeypatch)
    config = VisionConfig(128, 128, 2, 2, 28, 14)  # 5 rows of 256 bytes
    plans = Plans(bench.cuda, bench.device, vision_attention(config, "fp16"))
    attention = VisionAttention(bench.device, bench.memory, plans, config, "fp16")  # type: ignore[arg-type]
    attention.make(3)  # which checks the first and the last tile
    assert plans.made == [(5, 0)]
    attention.close()


@pytest.mark.parametrize("rows", [1, 16, 300])
def test_tensorrt_computes_text_attention_for_all_lengths(
    bench: Bench, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cudnn.remove(monkeypatch)
    attention, plans = bench.text()
    assert max(run_text(bench, attention, rows, CASES[rows])) < LIMITS["fp16"]
    parts = [MOST_ROWS, rows - MOST_ROWS] if rows > MOST_ROWS else [rows]
    assert plans.made == [(part, CAPACITY) for part in parts]
    attention.close()


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_any_number_of_heads_may_share_keys(bench: Bench, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TextConfig(96, 128, 2, 6, groups, 16, 1e-6, 1e6, 100, True, 4096)
    for remove in (False, True):
        if remove:
            fake_cudnn.remove(monkeypatch)
        attention, plans = bench.text(config=config)
        assert max(run_text(bench, attention, 16, CASES[16], config=config)) < LIMITS["fp16"]
        assert bool(plans.made) == remove
        attention.close()


def test_scores_past_the_range_of_fp16_do_not_overflow(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of Qwen2 have biases in the hundreds."""
    fake_cudnn.remove(monkeypatch)
    attention, _ = bench.text()
    width = TEXT.num_heads * TEXT.head_dim
    qkv = bench.array(np.full((1, qkv_width(TEXT)), 300, np.float16))
    cache = np.full((CAPACITY, TEXT.num_kv_heads, TEXT.head_dim), 300, np.float16)
    keys, values = bench.array(cache), bench.array(np.full_like(cache, 2))
    lengths, output = bench.array(np.array([1, 9], np.int32)), bench.array(np.zeros((1, width), np.float16))
    attention.make(1).enqueue(qkv, keys, values, lengths, output)
    assert (bench.memory.read(output, (1, width), np.float16) == 2).all()
    attention.close()


def wrong_mask(cudnn: FakeCudnn) -> None:
    cudnn.keys_too_many = 1


def not_finite(cudnn: FakeCudnn) -> None:
    cudnn.breaks = True


def does_not_run(cudnn: FakeCudnn) -> None:
    cudnn.fails_to_run = True


def refuses_all(cudnn: FakeCudnn) -> None:
    cudnn.refuses[0] = "no engine for this GPU"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (wrong_mask, "computes nonsense: the relative error is"),
        (not_finite, "some numbers are not finite for 1 new tokens in 16 rows, 1 of 320 rows of the cache valid"),
        (does_not_run, "CUDNN_STATUS_EXECUTION_FAILED"),
        (refuses_all, "cuDNN 9.19.0 has no kernel for attention: no engine for this GPU"),
    ],
)
def test_a_faulty_cudnn_is_noticed_and_said_once(
    bench: Bench, fault: Callable[[FakeCudnn], None], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    fault(bench.cudnn)
    attention, plans = bench.text()
    with caplog.at_level(logging.WARNING):
        assert max(run_text(bench, attention, 16, CASES[16])) < LIMITS["fp16"]
        attention.make(1)
    assert [rows for rows, _ in plans.made] == [16, 1]
    (record,) = caplog.records
    assert said in record.message
    assert "which is slower than cuDNN" in record.message
    attention.close()


def test_a_shape_that_cudnn_refuses_leaves_it_the_others(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.cudnn.refuses[16] = "rows must be a multiple of 64"
    attention, plans = bench.text()
    for rows in (1, 16, 64):
        attention.make(rows)
    assert [rows for rows, _ in plans.made] == [16]
    assert bench.cudnn.built == 2
    attention.close()


def test_without_cudnn_the_log_says_once_how_to_install_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_cudnn.remove(monkeypatch)
    vision, _ = bench.vision()
    text, _ = bench.text()
    with caplog.at_level(logging.WARNING):
        vision.make(1)
        text.make(1)
    (record,) = caplog.records
    assert re.search(r"-m pip install nvidia-cudnn-frontend\S* nvidia-cudnn-cu13", record.message)
    vision.close()
    text.close()


def test_a_gpu_that_cudnn_does_not_support_is_not_tried(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.device.compute_capability = (7, 5)
    attention, plans = bench.vision()
    with caplog.at_level(logging.WARNING):
        attention.make(1)
    assert "need compute capability 8.0 or more, and Fake GPU has 7.5" in caplog.text
    assert "pip install" not in caplog.text
    assert plans.made
    assert not bench.cudnn.built
    attention.close()


def test_nothing_is_used_if_tensorrt_is_wrong_too(bench: Bench) -> None:
    wrong_mask(bench.cudnn)
    attention, plans = bench.text()
    plans.wrong = True
    with pytest.raises(
        EngineError, match="nothing computes the text decoder's attention of 16 tokens right on Fake GPU"
    ):
        attention.make(16)
    vision, plans = bench.vision()
    not_finite(bench.cudnn)
    plans.wrong = True
    with pytest.raises(EngineError, match=r"TensorRT: it computes nonsense.*cuDNN: cuDNN 9\.19\.0 is not used"):
        vision.make(2)
    attention.close()
    vision.close()


def test_the_check_leaves_no_memory_behind(bench: Bench) -> None:
    attention, _ = bench.text()
    attention.make(1)
    before = bench.memory.by_purpose()
    attention.make(16)
    attention.make(64)
    assert bench.memory.by_purpose() == before, "all kernels share the working memory"
    attention.close()


def test_kernels_keep_their_working_memory_when_a_larger_one_needs_more(bench: Bench) -> None:
    attention, _ = bench.text()
    small = attention.make(1)
    bench.cudnn.workspace = 100_000
    attention.make(16)
    bench.cudnn.workspace = 1000
    output = bench.array(np.zeros((1, TEXT.num_heads * TEXT.head_dim), np.uint16))
    cache = bench.array(np.zeros((CAPACITY, TEXT.num_kv_heads * TEXT.head_dim), np.uint16))
    qkv = bench.array(np.zeros((1, qkv_width(TEXT)), np.uint16))
    small.enqueue(qkv, cache, cache, bench.array(np.array([1, 1], np.int32)), output)
    bench.device.wait()
    attention.close()


def test_too_little_memory_is_an_error_and_no_reason_for_tensorrt(bench: Bench) -> None:
    attention, plans = bench.text()
    bench.cudnn.workspace = 2 * bench.cuda.total
    with pytest.raises(EngineError, match=r"cuDNN needs .* of GPU memory"):
        attention.make(16)
    assert not plans.made
    attention.close()


def test_kernels_run_in_a_graph_with_the_lengths_of_each_launch(bench: Bench) -> None:
    attention, _ = bench.text()
    kernel = attention.make(16)
    width, cache = TEXT.num_heads * TEXT.head_dim, (CAPACITY, TEXT.num_kv_heads, TEXT.head_dim)
    (qkv, queries), (keys, wide_keys), (values, wide_values) = (
        sample(shape, "fp16", seed) for seed, shape in enumerate(((16, qkv_width(TEXT)), cache, cache))
    )
    addresses = [bench.array(each) for each in (qkv, keys, values)]
    lengths, output = bench.array(np.zeros(2, np.int32)), bench.array(np.zeros((16, width), np.uint16))
    graph = CudaGraph(bench.device, lambda: kernel.enqueue(*addresses, lengths, output))
    for new, valid in ((2, 9), (16, 77)):
        bench.memory.write(lengths, np.array([new, valid], np.int32))
        graph.launch()
        found = from_words(bench.memory.read(output, (16, width), np.uint16), "fp16")[:new]
        expected = text_reference(queries, wide_keys, wide_values, new, valid, TEXT)
        np.testing.assert_allclose(found, expected, atol=2e-3)
    graph.close()
    attention.close()


def test_one_handle_serves_a_device(bench: Bench) -> None:
    vision, _ = bench.vision()
    text, _ = bench.text()
    assert len(bench.cudnn.handles) == 1
    vision.close()
    assert bench.cudnn.handles, "the other one still needs it"
    text.make(1)
    text.close()
    assert not bench.cudnn.handles
