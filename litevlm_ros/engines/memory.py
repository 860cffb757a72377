"""Whether there is memory for a build: an 8 GB board that swaps to death says nothing any more."""

from __future__ import annotations

from pathlib import Path

from litevlm_ros.errors import EngineError

_MEMINFO = Path("/proc/meminfo")


def build_memory(weights: int) -> int:
    """Bytes that exporting and building a part take at most, for weights of this many bytes in fp16.

    Measured on InternVL2-1B with TensorRT-RTX 1.4 on x86-64: 5.5 GB at the most, for a text decoder of 0.99 GB.
    """
    return int(4.5 * weights) + (1 << 30)


def check_memory(part: str, needed: int, *, meminfo: Path = _MEMINFO) -> None:
    """Raises EngineError, with what helps, if a build that takes `needed` bytes does not fit into memory and swap."""
    memory = _read(meminfo)
    available = memory.get("MemAvailable", 0) + memory.get("SwapFree", 0)
    if not memory or available >= needed:
        return
    swap = -(-(needed - available) // (1 << 30)) + 1
    raise EngineError(
        f"building the {part.replace('_', ' ')} takes up to {needed / 1e9:.1f} GB of memory and {available / 1e9:.1f} "
        f"GB are free, swap included. Close other programs (a Jetson's desktop takes 1 GB), or add swap: `sudo "
        f"fallocate -l {swap}G /mnt/litevlm.swap && sudo chmod 600 /mnt/litevlm.swap && sudo mkswap /mnt/litevlm.swap "
        "&& sudo swapon /mnt/litevlm.swap`; or use a smaller model, or build on another machine with the same GPU and "
        "TensorRT (models/README.md, prebuilt engines). --skip-memory-check builds in spite of this"
    )


def _read(meminfo: Path) -> dict[str, int]:
    """Bytes by name; nothing where there is no such file."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if line.endswith("kB"))
    return {name: int(size.split()[0]) << 10 for name, size in pairs}
