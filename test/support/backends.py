"""Backends of the tiny model on the fake TensorRT and on ONNX Runtime, and what their answers have to agree in.

The fake computes in fp16 and the reference in fp32. So logits are compared within TOLERANCE, and tokens where the
reference's likeliest one is so far ahead that this cannot change it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from litevlm_ros.backend import Backend
from litevlm_ros.config import PipelineConfig
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.load import load_backend
from litevlm_ros.runtime.onnx.token_selection import HostVisualTokens

TOLERANCE = 0.03
"""2 % of the scale of the tiny model's logits, which is 1.4. Errors of up to 0.015 were measured."""

V = 320
"""The tiny model's words."""

PIXELS = (np.arange(56 * 56 * 3).reshape(1, 56, 56, 3) % 251).astype(np.uint8)
PROMPT = np.array([5, 9, V, V + 1, V + 2, V + 3, 17, 20, 2])


def load(directory: Path, **settings: Any) -> Backend:
    return load_backend(PipelineConfig(directory, **settings), ModelConfig.from_directory(directory))


def on_cpu(directory: Path, **settings: Any) -> Backend:
    return load(directory, backend="onnxruntime", **settings)


def tiles(count: int) -> Any:
    return np.concatenate([np.roll(PIXELS, 7 * shift, 1) for shift in range(count)])


def words(count: int, step: int = 37) -> Any:
    """Ids of words that do not repeat soon."""
    return (np.arange(count) * step + 11) % V


def read(backend: Backend, ids: Any, wanted: int = 1, visual: Any = None) -> tuple[list[int], Any]:
    """Next tokens and logits of ids at the positions after the cache."""
    start = backend.text.cache.length
    output = backend.text.forward(np.asarray(ids), start + np.arange(len(ids)), visual, wanted)
    return output.next_tokens.tolist(), output.logits().copy()


def on_host(backend: Backend, tokens: Any) -> Any:
    """Visual tokens fp16 [count, text width] as they are in device memory."""
    device = backend.text._device  # type: ignore[attr-defined]
    with device:
        memory = device.driver.pagelocked_zeros((tokens.size,), np.uint8, mem_flags=2)
        device.driver.memcpy_dtoh_async(memory, tokens.address, device.stream)
        device.wait()
        numbers = memory.view(np.float16).reshape(tokens.count, -1).copy()
        memory.base.free()
    return numbers


def agree(tokens: Any, expected: Any) -> int:
    """Asserts that `tokens` are those of the reference's logits `expected` [K, V]. Returns how many had no choice."""
    tokens, best = np.asarray(tokens), np.sort(expected, -1)
    sure = best[:, -1] - best[:, -2] > 2 * TOLERANCE
    np.testing.assert_array_equal(tokens[sure], expected.argmax(-1)[sure])
    chosen = expected[np.arange(len(tokens)), tokens]
    assert (chosen >= best[:, -1] - 2 * TOLERANCE).all(), "a token that is not among the likeliest"
    return int(sure.sum())


def same(found: tuple[list[int], Any], expected: tuple[list[int], Any]) -> int:
    """Asserts that two results of `read` agree. Returns how many tokens had no choice."""
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=TOLERANCE)
    return agree(found[0], expected[1])


def follow(reference: Backend, token: int, position: int, tokens: list[int]) -> int:
    """Asserts that the reference, too, continues with `tokens`. Returns how many of them had no choice."""
    sure = 0
    for place, found in enumerate(tokens):
        output = reference.text.forward(np.array([token]), np.array([position + place]))
        sure += agree([found], output.logits())
        token = found
    return sure


@dataclass
class Call:
    """A call of `forward`, or with `decoded` one of `decode_greedy`, and what came of it."""

    length: int
    ids: Any
    positions: Any
    visual: Any = None
    tokens: Any = None
    logits: Any = None
    decoded: list[int] | None = None


@dataclass
class Recorder:
    """Records what a pipeline asks a backend's decoder for, so that a reference can be asked for the same."""

    backend: Backend
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        text: Any = self.backend.text
        forward, decode_greedy = text.forward, text.decode_greedy

        def record_forward(ids: Any, positions: Any, visual: Any = None, num_logits: int = 1) -> Any:
            rows = None if visual is None else on_host(self.backend, visual)
            length = text.cache.length
            output = forward(ids, positions, visual, num_logits)
            logits = output.logits().copy()
            self.calls.append(Call(length, ids.copy(), positions.copy(), rows, output.next_tokens.copy(), logits))
            return output

        def record_decoding(token: int, position: int, limit: int) -> Any:
            self.calls.append(Call(text.cache.length, token, position, decoded=[]))
            for found in decode_greedy(token, position, limit):
                self.calls[-1].decoded.append(found)
                yield found

        text.forward, text.decode_greedy = record_forward, record_decoding

    def check(self, reference: Backend) -> int:
        """Asserts that `reference` does the same. Returns how many tokens had no choice."""
        sure = 0
        for call in self.calls:
            reference.text.cache.truncate(call.length)
            if call.decoded is not None:
                sure += follow(reference, call.ids, call.positions, call.decoded)
                continue
            visual = None if call.visual is None else HostVisualTokens(call.visual.astype(np.float32))
            output = reference.text.forward(call.ids, call.positions, visual, len(call.tokens))
            sure += same((call.tokens, call.logits), (output.next_tokens.tolist(), output.logits()))
        return sure
