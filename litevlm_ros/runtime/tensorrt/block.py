"""A block that is ready to run, whoever computes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from litevlm_ros.engines.block_graph import UNIT
from litevlm_ros.runtime.tensorrt.memory import Room, aligned, places
from litevlm_ros.runtime.tensorrt.program import Piece
from litevlm_ros.runtime.tensorrt.weights import RunWeights


class Block(ABC):
    """A block of `engines/text_blocks.py` or `engines/vision_blocks.py` for a fixed number of rows."""

    reads_unit = False
    """True if UNIT is one of its inputs."""

    @abstractmethod
    def enqueue(self, addresses: Mapping[str, int]) -> None:
        """Enqueues one run on tensors at these addresses, by the names of the block's graph. Raises EngineError."""

    def piece(self, weights: RunWeights, addresses: Mapping[str, int], *activations: str) -> Piece:
        """Returns the part of a program that runs this block with `weights`, and `activations` at their `addresses`.

        UNIT need not be named, but must have an address if the block reads it.
        """
        given = (*activations, UNIT) if self.reads_unit else activations
        every = {**weights.addresses, **{name: addresses[name] for name in given}}

        def enqueue() -> None:
            weights.unpack()
            self.enqueue(every)

        return enqueue


class ScratchBlock(Block):
    """A block of several kernels, between which values lie in working memory that all blocks share."""

    def __init__(self, rows: int, scratch: Room, sizes: Mapping[str, int]) -> None:
        """`sizes` are the bytes of those values by name. Raises EngineError if there is no room."""
        self._rows, self._scratch, self._sizes = rows, scratch, sizes
        scratch.at_least(sum(map(aligned, sizes.values())))

    def _places(self) -> Mapping[str, int]:
        return places(self._scratch.address, self._sizes)
