"""Random models in device memory, of which the decode kernel computes steps, and torch the same with float64.

All that these tests know of the kernel's launcher and its buffers is in `Bench`. PyTorch computes on the GPU: a step of
a real vocabulary takes milliseconds there, and most of a second in numpy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from decode_reference import Arrays, LayerWeights, Result, Shapes, decode, restored
from internvl2_1b import INTERNVL2_1B

from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.attention_reference import relative_error
from litevlm_ros.runtime.tensorrt.decode_step import DecodeSteps
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kept_files import KeptFiles
from litevlm_ros.runtime.tensorrt.kernels.decode import DecodeKernels, WeightFormat
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory
from litevlm_ros.runtime.tensorrt.numbers import from_words
from litevlm_ros.runtime.tensorrt.packed_weights import StoredWeight
from litevlm_ros.runtime.tensorrt.text_buffers import TextBuffers
from litevlm_ros.runtime.tensorrt.weights import RunWeights, TextWeights

CAPACITY, VISUAL = 2048, 8
TOLERANCES = {"fp16": 5e-3, "bf16": 4e-2}
"""Type of numbers → the largest relative error of a row of logits, keys or values. One rounding is 5e-4, or 4e-3."""

ODD = TextConfig(384, 1280, 3, 3, 3, 128, 1e-5, 1e4, 997, False, 4096)
"""One query head for each key head, wide heads, and a vocabulary that is no multiple of 8."""
QWEN3 = TextConfig(1024, 3072, 2, 16, 8, 128, 1e-6, 1e6, 151936, True, 32768, qkv_bias=False, qk_norm=True)
"""Two layers of Qwen3-0.6B, which is InternVL3.5-1B's text decoder: queries are wider than rows."""
MODELS = {"1b": replace(INTERNVL2_1B.text, num_layers=2), "odd": ODD, "qwen3": QWEN3}
"""Layers differ in nothing but their numbers, and two show that one follows the other."""
FORMATS = {
    "fp16": ("fp16", WeightFormat()),
    "bf16": ("bf16", WeightFormat()),
    "fp8": ("fp16", WeightFormat("fp8")),
    "int8": ("fp16", WeightFormat("int8")),
    "int4": ("fp16", WeightFormat("int4", 128)),
    "int4 in small blocks": ("fp16", WeightFormat("int4", 64)),
}
_MATRICES = ("qkv_weight", "o_proj", "gate_up", "down")


@dataclass
class Bench:
    """A model on the device, and what the reference computes it from, in float64 of `arrays`."""

    device: CudaDevice
    memory: DeviceMemory
    config: TextConfig
    computed: str
    buffers: TextBuffers
    kernels: DecodeKernels
    steps: DecodeSteps
    arrays: Arrays
    layers: list[LayerWeights]
    table: Any
    final_norm: Any
    past: Any
    """Keys and values that lie in the cache: words [layers, 2, CAPACITY, G, D]."""
    wide_past: Any

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

    def launch(self, tokens: int, **changes: int) -> tuple[Any, Any]:
        """Runs the variant for `tokens` tokens on the prompt that was uploaded, with other masks in its argument.

        Returns the next tokens and the logits.
        """
        step = self.steps._argument(self.buffers.prompt)
        self.kernels.launch(tokens, replace(step, **changes))
        self.buffers.download_results()
        return self.buffers.read_results()[0][:tokens].copy(), self.logits(tokens)

    def upload(self, array: Any) -> int:
        """Returns the address of a copy."""
        address = self.memory.allocate("test", array.nbytes)
        self.memory.write(address, np.ascontiguousarray(array))
        return address

    def numbers(self, address: int, shape: tuple[int, ...]) -> Any:
        return from_words(self.memory.read(address, shape, np.uint16), self.computed).astype(np.float64)

    def logits(self, count: int) -> Any:
        return self.numbers(self.buffers.logits, (count, self.buffers.logits_stride))[:, : self.config.vocab_size]

    def expected(self, ids: Any, positions: Any, past: int, visual: Any = None) -> Result:
        """Returns what the reference finds, in numpy; `visual` are the visual tokens [N, H] in float64."""
        words, place = self.config.vocab_size, self.arrays.place
        rows = [place(visual[each - words]) if each >= words else self.table[each] for each in ids]
        frequencies = self.memory.read(self.buffers.frequencies, (self.config.head_dim // 2,), np.float32)
        behind = [(keys[:past], values[:past]) for keys, values in self.wide_past]
        found = decode(
            Shapes.of(self.config), self.layers, behind, self.arrays.library.stack(rows), positions, frequencies,
            self.final_norm, self.table[:words], self.config.rms_norm_eps, arrays=self.arrays,
        )  # fmt: skip
        keys, values = ([each.cpu().numpy() for each in rows] for rows in (found.keys, found.values))
        return Result(keys, values, found.logits.cpu().numpy())

    def hold(self, found: Any, expected: Any, what: str) -> float:
        worst = relative_error(found, expected)
        assert worst < TOLERANCES[self.computed], f"{what}: relative error {worst:.1e}"
        return worst


class Benches:
    """The models in all formats, each made once. Kernels are compiled meanwhile, those of all formats side by side."""

    def __init__(self, directory: Path) -> None:
        """Kernels are kept in `directory`."""
        import torch

        self._torch = torch
        self._place = "cuda" if torch.cuda.is_available() else "cpu"
        self._arrays = Arrays(torch, lambda array: torch.as_tensor(array, device=self._place))
        self.device = CudaDevice()
        """Must be current in every call of `bench`."""
        with self.device:
            self._memory = DeviceMemory(self.device)
        self._kept = KeptFiles(directory / "x.engine")
        self._threads = ThreadPoolExecutor()
        self._compiled = {
            (name, form): self._threads.submit(self._compile, name, form) for name in MODELS for form in FORMATS
        }
        self._made: list[Bench] = []
        self.bench: Callable[..., Bench] = functools.cache(self._bench)
        self._layers = functools.cache(self._random_layers)
        self._table = functools.cache(self._random_table)

    def close(self) -> None:
        """Frees the memory of all models, torch's too."""
        self._threads.shutdown(cancel_futures=True)
        with self.device:
            self.device.wait()
            for bench in self._made:
                bench.steps.close()
            self._memory.free()
        for cached in (self.bench, self._layers, self._table):
            cached.cache_clear()  # type: ignore[attr-defined]
        self._made.clear()
        self.device.close()
        if self._torch.cuda.is_available():
            self._torch.cuda.empty_cache()

    def _compile(self, name: str, form: str) -> None:
        """Leaves a model's kernels where `_bench` finds them."""
        with self.device:
            DecodeKernels(self.device, MODELS[name], *FORMATS[form], self._kept).close()

    def _normal(self, seed: int, *shape: int) -> Any:
        random = self._torch.Generator(self._place).manual_seed(seed)
        return self._torch.randn(shape, generator=random, device=self._place)

    def _random_layers(self, name: str) -> list[list[Any]]:
        """The matrices of each layer, float32."""
        shapes = Shapes.of(MODELS[name])
        return [
            [
                self._normal(10 * layer + index, *shape) / shape[1] ** 0.5
                for index, shape in enumerate(shapes.matrices())
            ]
            for layer in range(shapes.layers)
        ]

    def _random_table(self, name: str, computed: str, packing: str) -> tuple[StoredWeight, Any]:
        """The words of the embedding, which is the head too: as it lies in device memory, and in float64."""
        shapes = Shapes.of(MODELS[name])
        table = self._normal(7, shapes.padded, shapes.hidden) / shapes.hidden**0.5
        if not packing:
            table[shapes.vocabulary :] = 0  # a row of zeros has no scale
        return self._matrix(table, computed, WeightFormat(packing))

    def _upload(self, tensor: Any) -> int:
        array = tensor.contiguous().cpu().numpy()
        address = self._memory.allocate("test", array.nbytes)
        self._memory.write(address, array)
        return address

    def _numbers(self, tensor: Any, computed: str) -> tuple[int, Any]:
        """The address of numbers that were rounded to `computed`, and these in float64."""
        rounded = tensor.to(self._torch.bfloat16 if computed == "bf16" else self._torch.float16)
        return self._upload(rounded.view(self._torch.int16)), rounded.double()

    def _packed(self, weight: Any, stored: WeightFormat) -> tuple[Any, Any]:
        """The bytes [N, ...] of a packed weight, and its scales."""
        rows = weight.reshape(len(weight), -1, stored.block or weight.shape[1])
        most = {"fp8": 448, "int8": 127, "int4": 7}[stored.packing]
        scales = (rows.abs().amax(-1, keepdim=True) / most).half()
        values = (rows / scales.float()).reshape(weight.shape)
        scales = scales.reshape(len(weight), -1)
        if stored.packing == "fp8":
            return values.clamp(-most, most).to(self._torch.float8_e4m3fn).view(self._torch.uint8), scales
        least = -8 if stored.packing == "int4" else -most
        whole = values.round().clamp(least, most).to(self._torch.int8).view(self._torch.uint8)
        return whole if stored.packing == "int8" else (whole[:, ::2] & 15) | (whole[:, 1::2] << 4), scales

    def _matrix(self, matrix: Any, computed: str, stored: WeightFormat) -> tuple[StoredWeight, Any]:
        """A matrix as it lies in device memory, and its numbers in float64."""
        if not stored.packing:
            address, wide = self._numbers(matrix, computed)
            return StoredWeight(address), wide
        values, scales = self._packed(matrix, stored)
        place = StoredWeight(self._upload(values), stored.packing, self._upload(scales), stored.block)
        return place, restored(values, scales, stored.packing, self._arrays)

    def _bench(self, name: str, form: str, visual_is_bf16: bool = False) -> Bench:
        config, (computed, stored) = MODELS[name], FORMATS[form]
        device, memory, shapes = self.device, self._memory, Shapes.of(MODELS[name])

        def floats(tensor: Any) -> tuple[int, Any]:
            return self._upload(tensor), tensor.double()

        runs, reference = [], []
        for layer, matrices in enumerate(self._layers(name)):
            pairs = [self._matrix(matrix, computed, stored) for matrix in matrices]
            of_names = {matrix: place for matrix, (place, _) in zip(_MATRICES, pairs, strict=True)}
            bias = 0.2 * self._normal(100 + layer, shapes.qkv_width)
            bias_address, wide_bias = self._numbers(bias, "bf16") if computed == "bf16" else floats(bias)
            norms = [floats(1 + 0.1 * self._normal(200 + 2 * layer + at, shapes.hidden)) for at in range(2)]
            of_heads = [floats(1 + 0.1 * self._normal(500 + 2 * layer + at, shapes.head_dim)) for at in range(2)]
            qkv = {"input_norm": norms[0][0]}
            if config.qkv_bias:
                qkv["qkv_bias"] = bias_address
            if config.qk_norm:
                qkv |= {"q_norm": of_heads[0][0], "k_norm": of_heads[1][0]}
            runs.append(RunWeights(qkv, lambda: None, {"qkv_weight": of_names.pop("qkv_weight")}))
            runs.append(RunWeights({"post_norm": norms[1][0]}, lambda: None, of_names))
            reference.append(LayerWeights(
                [wide for _, wide in pairs], wide_bias if config.qkv_bias else None, norms[0][1], norms[1][1],
                *(wide if config.qk_norm else None for _, wide in of_heads),
            ))  # fmt: skip
        final_norm, wide_final_norm = floats(1 + 0.1 * self._normal(300, shapes.hidden))
        words, table = self._table(name, computed, stored.words)
        runs.append(RunWeights({"norm": final_norm}, lambda: None, {"head": words}))
        weights: Any = TextWeights(runs, None, words)  # type: ignore[arg-type]
        buffers = TextBuffers(config, CAPACITY, 64, VISUAL, device, memory)
        self._compiled[name, form].result()
        kernels = DecodeKernels(device, config, computed, stored, self._kept)
        steps = DecodeSteps(config, kernels, weights, buffers, device, memory, visual_is_bf16=visual_is_bf16)
        cache = self._normal(400, shapes.layers, 2, CAPACITY, config.num_kv_heads, config.head_dim)
        rounded = cache.to(self._torch.bfloat16 if computed == "bf16" else self._torch.float16)
        past = rounded.view(self._torch.int16).cpu().numpy().view(np.uint16)
        self._made.append(Bench(
            device, memory, config, computed, buffers, kernels, steps, self._arrays, reference, table,
            wide_final_norm, past, rounded.double(),
        ))  # fmt: skip
        return self._made[-1]
