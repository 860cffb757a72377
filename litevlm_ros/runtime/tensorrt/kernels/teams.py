"""The division of a GPU's blocks into teams, which compute a decode step together as share.cuh says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.cooperative import CooperativeKernel
from litevlm_ros.runtime.tensorrt.kernels.module import compile_kernels

_LEAST_WITH_CLUSTERS = (9, 0)
"""The least compute capability whose blocks reach each other's shared memory."""
_SIZES = (8, 4, 2)
"""The blocks of a team, the best first. A cluster of more than 8 is not portable."""
_MOST_SINGLES = 32
"""The most teams of one block: each block reads the parts of all teams."""
_PROBE = """
extern "C" __global__ void __cluster_dims__(TEAM, 1, 1) probe() {}
"""


@dataclass(frozen=True)
class Teams:
    """`count` teams of `size` blocks each, all of which run at the same time, one on a multiprocessor."""

    count: int
    size: int

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return self.count * self.size


def divided(heads: int, units: int, singles: int, most_clusters: Callable[[int], int]) -> Teams:
    """Returns the largest teams of which there is one for each of `heads` heads, or teams of one block.

    There are at most `units` teams, the units of the MLP that are given out. `singles` blocks run at the same time, and
    `most_clusters(size)` clusters of so many blocks.
    """
    for size in _SIZES:
        count = min(most_clusters(size), units)
        if count >= heads:
            return Teams(count, size)
    return Teams(max(1, min(singles, _MOST_SINGLES, units)), 1)


def teams_on(device: CudaDevice, heads: int, units: int, threads: int, shared_bytes: int) -> Teams:
    """Divides the blocks that run on a GPU, which must be current. Each has so many threads and bytes of shared memory.

    Raises EngineError if NVRTC is missing, or if the driver refuses to answer.
    """

    def most_clusters(size: int) -> int:
        if device.compute_capability < _LEAST_WITH_CLUSTERS or size * heads > device.multiprocessors:
            return 0
        code = compile_kernels(_PROBE, device.compute_capability, {"TEAM": f"{size}"})
        probe = CooperativeKernel(device, code, "probe", size, threads, shared_bytes)
        try:
            return probe.most_clusters(size)
        finally:
            probe.close()

    return divided(heads, units, device.multiprocessors, most_clusters)
