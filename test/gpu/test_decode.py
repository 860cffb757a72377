"""The decode kernel on a GPU, in all formats of weights, against the same step in numpy with float64."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decode_reference import LayerWeights, Shapes, bits, chosen, decode, restored
from gpu_bench import say
from internvl2_1b import INTERNVL2_1B

from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.attention_reference import relative_error
from litevlm_ros.runtime.tensorrt.decode_step import DecodeSteps
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kept_files import KeptFiles
from litevlm_ros.runtime.tensorrt.kernels.decode import DecodeKernels, Step, WeightFormat
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory
from litevlm_ros.runtime.tensorrt.numbers import from_words, to_words
from litevlm_ros.runtime.tensorrt.packed_weights import StoredWeight
from litevlm_ros.runtime.tensorrt.text_buffers import RING, TextBuffers
from litevlm_ros.runtime.tensorrt.weights import RunWeights, TextWeights

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

CAPACITY, VISUAL = 2048, 8
TOLERANCES = {"fp16": 5e-3, "bf16": 4e-2}
"""Type of numbers → the largest relative error of a row of logits, keys or values. One rounding is 5e-4, or 4e-3."""

ODD = TextConfig(384, 1280, 3, 3, 3, 128, 1e-5, 1e4, 997, False, 4096)
"""One query head for each key head, wide heads, and a vocabulary that is no multiple of 8."""
MODELS = {"1b": replace(INTERNVL2_1B.text, num_layers=2), "odd": ODD}
FORMATS = {
    "fp16": ("fp16", WeightFormat()),
    "bf16": ("bf16", WeightFormat()),
    "fp8": ("fp16", WeightFormat("fp8")),
    "int8": ("fp16", WeightFormat("int8")),
    "int4": ("fp16", WeightFormat("int4", 128)),
    "int4 in small blocks": ("fp16", WeightFormat("int4", 64)),
}
CASES = [(1, past) for past in (0, 1, 63, 64, 511, 1000, 2047)]
CASES += [(2, 2040), (5, 300), (8, 0), (8, 1023), (9, 64), (11, 5), (11, 700), (16, 0), (16, 448), (16, 2032)]
"""New tokens, and the rows of the cache before them."""


@functools.cache
def random_numbers(name: str) -> tuple[list[list[Any]], Any]:
    """The matrices of each layer, and the table of the words, which is the head too; float32."""
    shapes, random = Shapes.of(MODELS[name]), np.random.default_rng(7)
    layers = [
        [random.standard_normal(shape, np.float32) / np.float32(shape[1] ** 0.5) for shape in shapes.matrices()]
        for _ in range(shapes.layers)
    ]
    table = random.standard_normal((shapes.padded, shapes.hidden), np.float32) / np.float32(shapes.hidden**0.5)
    table[shapes.vocabulary :] = 0
    return layers, table


def packed(weight: Any, stored: WeightFormat) -> tuple[Any, Any]:
    """The bytes [N, ...] of a packed weight, and its scales."""
    rows = weight.reshape(len(weight), -1, stored.block or weight.shape[1])
    most = {"fp8": 448, "int8": 127, "int4": 7}[stored.packing]
    scales = (np.abs(rows).max(-1, keepdims=True) / most).astype(np.float16)
    values = (rows / scales.astype(np.float32)).reshape(weight.shape)
    if stored.packing == "fp8":
        codes = np.delete(np.arange(256, dtype=np.uint8), [127, 255])  # which are not numbers
        numbers = restored(codes[:, None], np.ones(254, np.float16), "fp8")[:, 0]
        order = np.argsort(numbers)
        between = (numbers[order][1:] + numbers[order][:-1]) / 2
        return codes[order][np.searchsorted(between, values)], scales.reshape(-1)
    whole = np.clip(np.rint(values), -most - (stored.packing == "int4"), most).astype(np.int8).view(np.uint8)
    if stored.packing == "int8":
        return whole, scales.reshape(-1)
    return (whole[:, ::2] & 15) | whole[:, 1::2] << 4, scales.reshape(len(weight), -1)


@dataclass
class Bench:
    """A model on the device, and what the reference computes it from."""

    device: CudaDevice
    memory: DeviceMemory
    config: TextConfig
    computed: str
    buffers: TextBuffers
    kernels: DecodeKernels
    steps: DecodeSteps
    layers: list[LayerWeights]
    table: Any
    final_norm: Any
    past: Any
    """Keys and values that lie in the cache: words [layers, 2, CAPACITY, G, D]."""

    def reset(self) -> None:
        """Writes the past to the cache."""
        for layer, both in enumerate(self.past):
            for address, words in zip((self.buffers.keys(layer), self.buffers.values(layer)), both, strict=True):
                self.memory.write(address, words)

    def read(self, ids: Any, positions: Any, past: int) -> tuple[Any, int | None]:
        """Reads tokens at once. Returns the next tokens and the first flag that is set."""
        program = self.steps.prompt(len(ids))
        self.buffers.write_prompt(ids, positions, past, 1)
        program.run()
        return self.buffers.read_results()

    def argument(self) -> Step:
        """The kernel's argument for the inputs of `write_prompt`."""
        return self.steps._argument(self.buffers.prompt)

    def numbers(self, address: int, shape: tuple[int, ...]) -> Any:
        return from_words(self.memory.read(address, shape, np.uint16), self.computed).astype(np.float64)

    def logits(self, count: int) -> Any:
        return self.numbers(self.buffers.logits, (count, self.buffers.logits_stride))[:, : self.config.vocab_size]

    def expected(self, ids: Any, positions: Any, past: int, visual: Any = None) -> Any:
        wide = from_words(self.past[:, :, :past], self.computed).astype(np.float64)
        words = self.config.vocab_size
        rows = [visual[each - words] if each >= words else self.table[each] for each in ids]
        frequencies = self.memory.read(self.buffers.frequencies, (self.config.head_dim // 2,), np.float32)
        past_of = [(keys, values) for keys, values in wide]
        return decode(
            Shapes.of(self.config), self.layers, past_of, np.stack(rows), positions, frequencies, self.final_norm,
            self.table[:words], self.config.rms_norm_eps,
        )  # fmt: skip

    def hold(self, found: Any, expected: Any, what: str) -> float:
        worst = relative_error(found, expected)
        assert worst < TOLERANCES[self.computed], f"{what}: relative error {worst:.1e}"
        return worst


@contextlib.contextmanager
def made(name: str, form: str, directory: Path, *, visual_is_bf16: bool = False) -> Iterator[Bench]:
    config, (computed, stored) = MODELS[name], FORMATS[form]
    device = CudaDevice()
    with device, contextlib.ExitStack() as resources:
        memory = DeviceMemory(device)
        resources.callback(memory.free)

        def upload(array: Any) -> int:
            array = np.ascontiguousarray(array)
            address = memory.allocate("test", array.nbytes)
            memory.write(address, array)
            return address

        def numbers(array: Any) -> tuple[int, Any]:
            words = to_words(array, computed)
            return upload(words), from_words(words, computed).astype(np.float64)

        random, shapes = np.random.default_rng(8), Shapes.of(config)
        layers, table = random_numbers(name)
        table_address, wide_table = numbers(table)
        runs, reference = [], []
        for matrices in layers:
            places, restored_ones = [], []
            for matrix in matrices:
                if not stored.packing:
                    address, wide = numbers(matrix)
                    places.append(StoredWeight(address))
                else:
                    values, scales = packed(matrix, stored)
                    wide = restored(values, scales, stored.packing)
                    places.append(StoredWeight(upload(values), stored.packing, upload(scales), stored.block))
                restored_ones.append(wide)
            bias = 0.2 * random.standard_normal(shapes.qkv_width, np.float32)
            norms = [1 + np.float32(0.1) * random.standard_normal(shapes.hidden, np.float32) for _ in range(2)]
            bias_address, wide_bias = numbers(bias) if computed == "bf16" else (upload(bias), bias.astype(np.float64))
            qkv = {"input_norm": upload(norms[0]), "qkv_bias": bias_address}
            names = ("qkv_weight", "o_proj", "gate_up", "down")
            of_names = dict(zip(names, places, strict=True))
            runs.append(RunWeights(qkv, lambda: None, {"qkv_weight": of_names.pop("qkv_weight")}))
            runs.append(RunWeights({"post_norm": upload(norms[1])}, lambda: None, of_names))
            reference.append(LayerWeights(restored_ones, wide_bias, *(norm.astype(np.float64) for norm in norms)))
        final_norm = 1 + np.float32(0.1) * random.standard_normal(shapes.hidden, np.float32)
        runs.append(RunWeights({"norm": upload(final_norm), "head": table_address}, lambda: None))
        weights: Any = TextWeights(runs, None, table_address)  # type: ignore[arg-type]
        buffers = TextBuffers(config, CAPACITY, 64, VISUAL, device, memory)
        kernels = DecodeKernels(device, config, computed, stored, KeptFiles(directory / "x.engine"))
        steps = DecodeSteps(config, kernels, weights, buffers, device, memory, visual_is_bf16=visual_is_bf16)
        resources.callback(steps.close)
        resources.callback(device.wait)
        cache = random.standard_normal((shapes.layers, 2, CAPACITY, config.num_kv_heads, config.head_dim), np.float32)
        yield Bench(
            device, memory, config, computed, buffers, kernels, steps, reference, wide_table,
            final_norm.astype(np.float64), to_words(cache, computed),
        )  # fmt: skip
    device.close()


def some_ids(bench: Bench, count: int) -> Any:
    return (np.arange(count) * 7919 + 31) % bench.config.vocab_size


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", MODELS)
def test_the_kernel_computes_what_float64_does(name: str, form: str, tmp_path: Path) -> None:
    """At positions that differ from the rows, and again behind other lengths, from the same buffers."""
    with made(name, form, tmp_path) as bench:
        worst, kept = 0.0, bench.config.num_kv_heads * bench.config.head_dim * 2
        for count, past in CASES:
            bench.reset()
            ids, positions = some_ids(bench, count), 3 + past + 2 * np.arange(count)
            next_tokens, bad = bench.read(ids, positions, past)
            assert bad is None
            found, expected = bench.logits(count), bench.expected(ids, positions, past)
            case = f"{count} tokens behind {past}"
            worst = max(worst, bench.hold(found, expected.logits, f"logits of {case}"))
            np.testing.assert_array_equal(next_tokens[:count], found.argmax(-1), case)
            for layer, rows in enumerate(zip(expected.keys, expected.values, strict=True)):
                for address, row in zip((bench.buffers.keys(layer), bench.buffers.values(layer)), rows, strict=True):
                    new = bench.numbers(address + past * kept, row.shape)
                    bench.hold(new.reshape(count, -1), row.reshape(count, -1), f"the cache of layer {layer}, {case}")
                    before = bench.memory.read(address, (past * kept // 2,), np.uint16)
            np.testing.assert_array_equal(before, bench.past[-1, 1, :past].reshape(-1), case)
        say(f"{name} in {form}: largest relative error of logits {worst:.1e}")


@pytest.mark.parametrize("name", MODELS)
def test_steps_move_on_by_themselves(name: str, tmp_path: Path) -> None:
    """Each is what a single call gives for the token before."""
    with made(name, "fp16", tmp_path) as bench:
        bench.reset()
        token, past, expected = 17, 60, []
        for place in range(20):
            token = int(bench.read(np.array([token]), np.array([past + 4 + place]), past + place)[0][0])
            expected.append(token)
        step = bench.steps.step()
        for _ in range(2):
            bench.reset()
            bench.buffers.write_state(17, past + 4, past)
            found = []
            for place in range(20):
                step.run()
                bench.device.wait()
                found.append(int(bench.buffers.ring[place % RING]))
            assert found == expected
        assert len(set(expected)) > 5


@pytest.mark.parametrize("count", [1, 8, 16])
def test_masks_and_penalties_change_the_choice_alone(count: int, tmp_path: Path) -> None:
    with made("odd", "fp16", tmp_path) as bench:
        random, words = np.random.default_rng(3), bench.config.vocab_size
        bench.reset()
        ids = some_ids(bench, count)
        bench.buffers.write_prompt(ids, 100 + np.arange(count), 100, 1)
        bench.buffers.upload_prompt()
        penalty = bench.memory.allocate("test", 4)
        bench.memory.write(penalty, np.array([1.7], np.float32))

        def upload(flags: Any) -> int:
            address = bench.memory.allocate("test", bits(flags).nbytes)
            bench.memory.write(address, bits(flags))
            return address

        def run(**changes: int) -> tuple[Any, Any]:
            bench.kernels.launch(count, replace(bench.argument(), **changes))
            bench.buffers.download_results()
            return bench.buffers.read_results()[0][:count].copy(), bench.logits(count)

        plain, logits = run()
        last = np.arange(words) == words - 1
        for share in (0.5, 0.02):
            allowed, penalised = random.random(words) < share, random.random(words) < 0.5
            penalised[plain] = True
            addresses = {"allowed": upload(allowed), "penalised": upload(penalised), "penalty": penalty}
            for names in (("allowed",), ("penalised", "penalty"), ("allowed", "penalised", "penalty")):
                found, same = run(**{each: addresses[each] for each in names})
                np.testing.assert_array_equal(same, logits)
                masks = allowed if "allowed" in names else None, penalised if "penalised" in names else None
                np.testing.assert_array_equal(found, chosen(logits, *masks, np.float32(1.7)))
        assert (run(allowed=upload(last))[0] == words - 1).all(), "one word is allowed"


@pytest.mark.parametrize("visual_is_bf16", [False, True])
def test_visual_tokens_are_embedded(visual_is_bf16: bool, tmp_path: Path) -> None:
    with made("odd", "fp16", tmp_path, visual_is_bf16=visual_is_bf16) as bench:
        kind = "bf16" if visual_is_bf16 else "fp16"
        rows = to_words(np.random.default_rng(4).standard_normal((VISUAL, bench.config.hidden_size), np.float32), kind)
        bench.memory.write(bench.buffers.visual, rows)
        bench.reset()
        for count in (1, 6, 10):
            ids = some_ids(bench, count)
            ids[::3] = bench.config.vocab_size + np.arange(len(ids[::3]))
            assert bench.read(ids, 9 + np.arange(count), 9)[1] is None
            expected = bench.expected(ids, 9 + np.arange(count), 9, from_words(rows, kind).astype(np.float64))
            bench.hold(bench.logits(count), expected.logits, f"{count} tokens")


@pytest.mark.parametrize("count", [1, 5, 13])
def test_numbers_that_are_not_finite_are_flagged_and_the_next_step_is_sound(count: int, tmp_path: Path) -> None:
    with made("odd", "fp16", tmp_path) as bench:
        bench.reset()
        step, ids, positions = bench.steps.step(), some_ids(bench, count), 50 + np.arange(count)
        assert bench.read(ids, positions, 50)[1] is None
        sound = bench.logits(count)
        row = np.full(bench.config.hidden_size, 0x7C00, np.uint16)
        bench.memory.write(bench.buffers.visual, row)
        ids[-1] = bench.config.vocab_size
        assert bench.read(ids, positions, 50)[1] == 0, "the first layer's keys"
        bench.buffers.write_state(bench.config.vocab_size, 50, 50)
        step.run()
        bench.device.wait()
        assert bench.buffers.ring[0] == -1
        bench.buffers.clear_rows(50, 50 + count)
        bench.buffers.clear_bad()
        assert bench.read(some_ids(bench, count), positions, 50)[1] is None
        np.testing.assert_array_equal(bench.logits(count), sound)
