"""The three Jetson Orin boards: the rates of their data sheets in their power modes, and what this project aims at."""

from __future__ import annotations

from dataclasses import dataclass

_FLOPS_PER_CLOCK = 2048
"""Dense fp16 FLOPs a clock of the tensor cores of one Ampere multiprocessor. An Orin has no FP8 arithmetic."""


@dataclass(frozen=True)
class Rates:
    """The highest rates of a GPU: bytes/s from and to memory, and dense fp16 FLOP/s of its tensor cores."""

    bandwidth: float
    flops: float


@dataclass(frozen=True)
class Mode:
    """A power mode, as `nvpmodel` names it: bandwidth in bytes/s, and the GPU's clock in Hz."""

    name: str
    bandwidth: float
    clock: float


@dataclass(frozen=True)
class Board:
    """A module as in NVIDIA's data sheet.

    `parameters` is the name of its file under config/. `built` are the precisions of vision encoder and text decoder
    that its launch file has built. `expected_ms` and `expected_bytes` are the inference time and the memory that this
    project set out to reach there, in its first mode.
    """

    title: str
    parameters: str
    multiprocessors: int
    modes: tuple[Mode, ...]
    built: tuple[str, str]
    expected_ms: float
    expected_bytes: float

    def rates(self, mode: Mode) -> Rates:
        """Returns its rates in one of its modes."""
        return Rates(mode.bandwidth, _FLOPS_PER_CLOCK * self.multiprocessors * mode.clock)


BOARDS = {
    "orin_agx": Board(
        "Jetson AGX Orin 32GB", "orin_agx.yaml", 14, (Mode("MAXN", 204.8e9, 930e6),), ("fp16", "fp8"), 45, 3.2e9
    ),
    "orin_nx": Board(
        "Jetson Orin NX 16GB",
        "orin_nx.yaml",
        8,
        (Mode("MAXN", 102.4e9, 918e6), Mode("MAXN SUPER", 102.4e9, 1173e6)),
        ("fp16", "fp8"),
        68,
        3.2e9,
    ),
    "orin_nano": Board(
        "Jetson Orin Nano 8GB",
        "orin_nano.yaml",
        8,
        (Mode("15W", 68e9, 625e6), Mode("MAXN SUPER", 102e9, 1020e6)),
        ("fp8", "fp8"),
        95,
        3.0e9,
    ),
}
"""The boards by the names of their launch files. JetPack 6.2 and later have the modes called SUPER."""

MEASURED_GPUS = {
    "NVIDIA H100 80GB HBM3": Rates(3.35e12, 989.4e12),
    "NVIDIA H200": Rates(4.8e12, 989.4e12),
}
"""The data sheets of GPUs on which `benchmark --compare-transformers` has run, by the driver's name for them."""
