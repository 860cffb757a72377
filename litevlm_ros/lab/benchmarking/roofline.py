"""The roofline: the bytes and FLOPs that a stage needs at least, and the time they take at given rates.

The rates are those of this GPU, measured by PyTorch, or those of the three Jetson Orin boards in their data sheets.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from litevlm_ros.model_config import ModelConfig

WEIGHT_BYTES = {"fp16": 2.0, "bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5 + 2 / 128}
"""Bytes of one weight of a linear layer; int4 has an fp16 scale for each block of 128. The output projection, which is
the embedding table too, stays fp16, and so do keys, values and activations."""
_HALF = 2


# --- costs


@dataclass(frozen=True)
class Cost:
    """The cost of one stage: bytes read from memory, and floating-point operations of its matrix products."""

    bytes: float
    flops: float

    def floor_ms(self, bandwidth: float, rate: float) -> float:
        """Returns the ms at `bandwidth` bytes/s and `rate` FLOP/s, both at once: the slower one decides."""
        return 1e3 * max(self.bytes / bandwidth, self.flops / rate)


def vision_cost(model: ModelConfig, tiles: int, precision: str = "fp16") -> Cost:
    """Returns the cost of encoding all tiles in one call, in which weights are read once."""
    vision, text = model.vision, model.text
    width, rows = vision.hidden_size, 1 + vision.grid**2
    layers = vision.num_layers * (4 * width**2 + 2 * width * vision.intermediate_size)
    patches = 3 * vision.patch_size**2 * width
    projector = vision.projector_size * text.hidden_size + text.hidden_size**2
    attention = vision.num_layers * 4 * rows**2 * width
    return Cost(
        bytes=WEIGHT_BYTES[precision] * layers + _HALF * (patches + projector),
        flops=tiles * (2 * rows * (layers + patches) + attention + 2 * vision.tokens_per_tile * projector),
    )


def prefill_cost(model: ModelConfig, tokens: int, precision: str = "fp16") -> Cost:
    """Returns the cost of reading a prompt into an empty cache, with logits of its last token."""
    text = model.text
    layers, head = _text_weights(model)
    attention = text.num_layers * 2 * tokens**2 * text.num_heads * text.head_dim  # half of the scores are masked
    return Cost(
        bytes=WEIGHT_BYTES[precision] * layers + _HALF * head + tokens * _row_bytes(model),
        flops=2 * tokens * layers + attention + 2 * head,
    )


def decode_cost(model: ModelConfig, context: int, precision: str = "fp16") -> Cost:
    """Returns the cost of one token behind `context` others."""
    text = model.text
    layers, head = _text_weights(model)
    attention = text.num_layers * 4 * context * text.num_heads * text.head_dim
    return Cost(
        bytes=WEIGHT_BYTES[precision] * layers + _HALF * head + context * _row_bytes(model),
        flops=2 * (layers + head) + attention,
    )


def _text_weights(model: ModelConfig) -> tuple[int, int]:
    """Counts the weights of all layers, and of the output projection."""
    text = model.text
    query, key_value = text.num_heads * text.head_dim, 2 * text.num_kv_heads * text.head_dim
    layer = text.hidden_size * (2 * query + key_value + 3 * text.intermediate_size)
    return text.num_layers * layer, text.vocab_size * text.hidden_size


def _row_bytes(model: ModelConfig) -> int:
    """Returns the bytes of one token's keys and values."""
    text = model.text
    return _HALF * text.num_layers * 2 * text.num_kv_heads * text.head_dim


# --- rates of this GPU


_COPY_BYTES = 1 << 30
_MATRIX_SIZE = 8192
_WARM_UP, _RUNS = 3, 10


def copy_bandwidth() -> float:
    """Measures the bytes/s that a copy within GPU memory reads and writes: the median of ten. Needs PyTorch."""
    import torch

    source = torch.zeros(_COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * _COPY_BYTES / _median_seconds(lambda: target.copy_(source))


def matrix_rate() -> float:
    """Measures the FLOP/s of a product of two random fp16 matrices: the median of ten. Needs PyTorch.

    (Zeros would be faster than real data.)
    """
    import torch

    first, second = (torch.randn(_MATRIX_SIZE, _MATRIX_SIZE, device="cuda").half() for _ in range(2))
    return 2 * _MATRIX_SIZE**3 / _median_seconds(lambda: first @ second)


def _median_seconds(work: Callable[[], object]) -> float:
    import torch

    times = []
    for _ in range(_WARM_UP + _RUNS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times[_WARM_UP:])


# --- estimates for boards


_FLOPS_PER_CLOCK = 2048
"""Dense fp16 FLOPs a clock of the tensor cores of one Ampere multiprocessor."""


@dataclass(frozen=True)
class Board:
    """A module as in NVIDIA's data sheets: bandwidth in bytes/s, multiprocessors, clock in Hz.

    `expected_ms` is the inference time that this project set out to reach there.
    """

    title: str
    bandwidth: float
    multiprocessors: int
    clock: float
    expected_ms: float

    @property
    def rate(self) -> float:
        """Dense fp16 FLOP/s of the tensor cores."""
        return _FLOPS_PER_CLOCK * self.multiprocessors * self.clock


BOARDS = {
    "orin_agx": Board("Jetson AGX Orin 32GB", 204.8e9, 14, 930e6, 45),
    "orin_nx": Board("Jetson Orin NX 16GB", 102.4e9, 8, 918e6, 68),
    "orin_nano": Board("Jetson Orin Nano 8GB", 68e9, 8, 625e6, 95),
}

SCHEMES = (("fp16", "fp16"), ("fp16", "int4"))
"""Precisions of vision encoder and text decoder. Orin has no FP8; weights in int4 are multiplied in fp16."""


@dataclass(frozen=True)
class Projection:
    """The least times of a board in ms; `first_token_ms` is vision and prefill together."""

    board: Board
    vision: str
    text: str
    vision_ms: float
    prefill_ms: float
    token_ms: float

    @property
    def first_token_ms(self) -> float:
        """Time in ms from the tiles to the first token."""
        return self.vision_ms + self.prefill_ms


def project(model: ModelConfig, board: Board, tiles: int = 1, extra_tokens: int = 64) -> list[Projection]:
    """Estimates an image of `tiles` tiles with `extra_tokens` of text on a board, for each of SCHEMES."""
    prompt = tiles * model.vision.tokens_per_tile + extra_tokens
    projections = []
    for vision, text in SCHEMES:
        costs = (vision_cost(model, tiles, vision), prefill_cost(model, prompt, text), decode_cost(model, prompt, text))
        floors = (cost.floor_ms(board.bandwidth, board.rate) for cost in costs)
        projections.append(Projection(board, vision, text, *floors))
    return projections


def projection_table(projections: Sequence[Projection]) -> str:
    """Returns a table that says that it is an estimate."""
    lines = [
        "ESTIMATE from bandwidth and compute alone (nothing was measured on these boards); a real run is slower.",
        f"{'board':22}{'vision':>8}{'text':>6}{'vision ms':>11}{'prefill ms':>12}{'first token ms':>16}{'ms/token':>10}"
        f"{'expected ms':>13}",
    ]
    for row in projections:
        lines.append(
            f"{row.board.title:22}{row.vision:>8}{row.text:>6}{row.vision_ms:11.1f}{row.prefill_ms:12.1f}"
            f"{row.first_token_ms:16.1f}{row.token_ms:10.1f}{row.board.expected_ms:13.0f}"
        )
    return "\n".join(lines)


def report_projection(directory: Path, board: str, tiles: int) -> tuple[str, dict[str, Any]]:
    """Estimates `board`, one of BOARDS or 'all', for a model directory. Returns a table and its figures for JSON.

    Raises CheckpointError.
    """
    model = ModelConfig.from_directory(directory)
    boards = BOARDS.values() if board == "all" else [BOARDS[board]]
    rows = [row for each in boards for row in project(model, each, tiles=tiles)]
    return projection_table(rows), {"model": str(directory), "estimates": [asdict(row) for row in rows]}
