"""Programs: work of fixed shapes at fixed addresses, recorded as one CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from litevlm_ros.errors import EngineError
from litevlm_ros.runtime.tensorrt.device import CudaDevice, CudaGraph

_LOGGER = logging.getLogger(__name__)

Piece = Callable[[], None]
"""A part of a program: a function that enqueues a kernel, a block or an attention."""


class Program:
    """Work that is enqueued as a whole: one call instead of some 150."""

    def __init__(self, device: CudaDevice, name: str, pieces: Sequence[Piece]) -> None:
        """Runs all `pieces` in order and then records them. `name` is for the log. Raises EngineError.

        CUDA loads kernels, and libraries allocate, at the first run, which a recording must not see. So the inputs must
        hold something harmless now.
        """
        self._device, self._name, self._pieces = device, name, pieces
        self._graph: CudaGraph | None = None
        self._can_record = True
        self._enqueue()
        device.wait()
        self._record()

    def run(self) -> None:
        """Enqueues the work. Raises EngineError."""
        if self._graph is not None:
            self._graph.launch()
            return
        self._enqueue()
        self._record()

    def forget_graph(self) -> None:
        """Has the work recorded anew at the next run, as an address in it has changed. It must not be running."""
        if self._graph is not None:
            self._graph.close()
        self._graph = None

    def close(self) -> None:
        """Frees the graph, and what only this program uses. It must not be running."""
        self.forget_graph()
        self._pieces = ()

    def _record(self) -> None:
        if not self._can_record:
            return
        try:
            self._graph = CudaGraph(self._device, self._enqueue)
        except EngineError as error:
            self._can_record = False
            _LOGGER.warning("%s runs without a CUDA graph, which is slower: %s", self._name, error)

    def _enqueue(self) -> None:
        for piece in self._pieces:
            piece()
