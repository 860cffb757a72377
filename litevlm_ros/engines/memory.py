"""The check that a build fits into memory: an 8 GB board that swaps to death says nothing any more."""

from __future__ import annotations

from litevlm_ros.errors import EngineError
from litevlm_ros.machine import available_bytes


def build_memory(weights: int) -> int:
    """Returns the bytes that exporting and building a part take at most, for so many bytes of fp16 weights.

    Measured on InternVL2-1B with TensorRT-RTX 1.4 on x86-64: 5.5 GB at the most, for a text decoder of 0.99 GB.
    """
    return int(4.5 * weights) + (1 << 30)


def check_memory(part: str, needed: int) -> None:
    """Raises EngineError, with what helps, if a build that takes `needed` bytes does not fit into memory and swap."""
    available = available_bytes()
    if available >= needed:
        return
    swap = -(-(needed - available) // (1 << 30)) + 1
    raise EngineError(
        f"building the {part.replace('_', ' ')} takes up to {needed / 1e9:.1f} GB of memory and {available / 1e9:.1f} "
        f"GB are free, swap included. Close other programs (a Jetson's desktop takes 1 GB), or add swap: `sudo "
        f"fallocate -l {swap}G /mnt/litevlm.swap && sudo chmod 600 /mnt/litevlm.swap && sudo mkswap /mnt/litevlm.swap "
        "&& sudo swapon /mnt/litevlm.swap`; or use a smaller model, or build on another machine with the same GPU and "
        "TensorRT (models/README.md, prebuilt engines). --skip-memory-check builds in spite of this"
    )
