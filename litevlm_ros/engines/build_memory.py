"""The memory that building engines takes, and the check that it is there."""

from __future__ import annotations

import os

from litevlm_ros.engines.kernel_compiler import MOST_WORKERS
from litevlm_ros.errors import EngineError
from litevlm_ros.machine import available_bytes

_PLANS = 1 << 30
"""Bytes that building plans takes at most: 0.45 GB were measured for InternVL2-1B with TensorRT-RTX 1.4 on x86-64, and
where GPU and CPU share memory the plans' weights and activations come on top while TensorRT measures."""

_PACKING = 0.75
"""Bytes that packing takes for each byte of the checkpoint. Of 16 bits a number, 8 are kept until the engine is
written, and the largest matrix is mapped while it is packed. 0.63 were measured for InternVL2-1B's text decoder in FP8
on x86-64, and 0.60 for its vision encoder."""

_CALIBRATION = 2.75
"""Bytes that calibration takes for each byte of the checkpoint. It computes in FP32, so 16 bits become 32, and the rest
is activations. 2.6 were measured for the vision encoder of InternVL2-1B on x86-64, and 2.4 for its text decoder."""

_WORKER = 600 << 20
"""Bytes of a process that compiles kernels, CUDA's context included."""


def build_memory(packed: int, calibrated: int = 0) -> int:
    """Returns the bytes of memory that building engines takes at most besides compiling kernels.

    `packed` is the size of the largest checkpoint of the parts whose weights are packed, 0 for none. Each part is read
    parameter by parameter, and its packed weights are gone before the next. `calibrated` is that of the parts that
    calibration loads in fp32, also one at a time. They are gone before weights are packed, so the larger need counts.
    """
    return _PLANS + max(int(_PACKING * packed), int(_CALIBRATION * calibrated))


def worker_count(needed: int) -> int:
    """Returns how many processes compile kernels: as cores and the memory beside `needed` bytes allow, at least 1."""
    free = (available_bytes() - needed) // _WORKER
    return max(1, min(MOST_WORKERS, len(os.sched_getaffinity(0)), free))


def check_memory(needed: int) -> None:
    """Raises EngineError, with what helps, if a build that takes `needed` bytes does not fit into memory and swap.

    Without this check an 8 GB board would swap until it no longer answers.
    """
    available = available_bytes()
    if available >= needed:
        return
    swap = -(-(needed - available) // (1 << 30)) + 1
    raise EngineError(
        f"building these engines takes up to {needed / 1e9:.1f} GB of memory and {available / 1e9:.1f} "
        f"GB are free, swap included. Close other programs (a Jetson's desktop takes 1 GB), or add swap: `sudo "
        f"fallocate -l {swap}G /mnt/litevlm.swap && sudo chmod 600 /mnt/litevlm.swap && sudo mkswap /mnt/litevlm.swap "
        "&& sudo swapon /mnt/litevlm.swap`; or use a smaller model, or build on another machine with the same GPU and "
        "TensorRT (models/README.md, prebuilt engines). --skip-memory-check builds in spite of this"
    )
