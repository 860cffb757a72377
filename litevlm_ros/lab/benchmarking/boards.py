"""Estimates for the three Jetson Orin boards from their bandwidth and compute: a roofline, not a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from litevlm_ros.lab.benchmarking.cost import decode_cost, prefill_cost, vision_cost
from litevlm_ros.model_config import ModelConfig

_FLOPS_PER_CLOCK = 2048
"""Of one Ampere multiprocessor's tensor cores, fp16, dense."""


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
    """Least times in ms; `first_token_ms` is vision and prefill together."""

    board: Board
    vision: str
    text: str
    vision_ms: float
    prefill_ms: float
    token_ms: float

    @property
    def first_token_ms(self) -> float:
        return self.vision_ms + self.prefill_ms


def project(model: ModelConfig, board: Board, tiles: int = 1, extra_tokens: int = 64) -> list[Projection]:
    """The least a board needs for an image of `tiles` tiles and `extra_tokens` of text, for each of SCHEMES."""
    prompt = tiles * model.vision.tokens_per_tile + extra_tokens
    stages = []
    for vision, text in SCHEMES:
        costs = (vision_cost(model, tiles, vision), prefill_cost(model, prompt, text), decode_cost(model, prompt, text))
        floors = (cost.floor_ms(board.bandwidth, board.rate) for cost in costs)
        stages.append(Projection(board, vision, text, *floors))
    return stages


def projection_table(projections: Sequence[Projection]) -> str:
    """For people."""
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
