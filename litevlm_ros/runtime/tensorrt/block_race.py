"""The comparison of a block by cuDNN's products with TensorRT's plan: which of them takes less time on this GPU.

It depends on the GPU, on both libraries and on the number of rows. So it is measured when a size is first used, and the
winner's name is kept beside the engine file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from litevlm_ros.errors import EngineError
from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.block_check import BlockCheck
from litevlm_ros.runtime.tensorrt.device import CudaDevice, CudaGraph
from litevlm_ros.runtime.tensorrt.kept_files import KeptFiles

RACING = ("qkv", "mlp")
"""The blocks that every layer runs. Whoever computes the others makes no difference that is worth a plan's memory."""
LEAST_ROWS = 64
"""Blocks of fewer rows are not compared: they wait for weights, whoever computes them."""

_PLAN, _PRODUCTS = b"plan", b"products"
_MARGIN = 0.8
"""A plan has to win by this factor. It takes memory, and a block that runs again and again finds its weights in the
GPU's cache, which one in a program does not. On an H100, plans of 6150 rows won by 8 and 16 % alone, and by 5 % in a
program."""
_RUNS, _LAUNCHES = 8, 4

_LOGGER = logging.getLogger(__name__)


class BlockRace:
    """Compares the blocks of one part. The device must be current in every call."""

    def __init__(self, check: BlockCheck, kept: KeptFiles, device: CudaDevice) -> None:
        """`check` makes the sample numbers that blocks run on, and `kept` keeps winners."""
        self._check, self._kept, self._device = check, kept, device

    def winner(
        self, name: str, rows: int, cudnn_version: str, products: Block, make_plan: Callable[[], Block]
    ) -> Block:
        """Returns the block `name` that is to be used: `products`, which is ready, or the plan that `make_plan` makes.

        It is `products` where there is no room for a plan, or where either cannot be timed.
        """
        if name not in RACING or rows < LEAST_ROWS:
            return products
        file = f"{name}-{rows}-cudnn-{cudnn_version}.winner"
        kept = self._kept.read(file)
        if kept == _PRODUCTS:
            return products
        try:
            plan = make_plan()
            if kept == _PLAN:
                return plan
            plan_seconds, products_seconds = (self._seconds(name, rows, each) for each in (plan, products))
        except EngineError as error:
            _LOGGER.debug("Block %s of %d rows is not compared with a plan: %s", name, rows, error)
            return products
        _LOGGER.info(
            "Block %s of %d rows: TensorRT takes %.0f µs and cuDNN %.0f µs",
            name, rows, 1e6 * plan_seconds, 1e6 * products_seconds,
        )  # fmt: skip
        plan_wins = plan_seconds < _MARGIN * products_seconds
        self._kept.write(file, _PLAN if plan_wins else _PRODUCTS)
        return plan if plan_wins else products

    def _seconds(self, name: str, rows: int, block: Block) -> float:
        """Returns the shortest time of a run, of several in a row on sample numbers. Raises EngineError."""
        with self._check.sample(name, rows) as addresses:
            block.enqueue(addresses)  # loads kernels, which a recording must not see
            self._device.wait()

            def record() -> None:
                for _ in range(_RUNS):
                    block.enqueue(addresses)

            graph = CudaGraph(self._device, record)
            try:
                return min(self._launch(graph) for _ in range(1 + _LAUNCHES)) / _RUNS
            finally:
                graph.close()

    def _launch(self, graph: CudaGraph) -> float:
        started = time.perf_counter()
        graph.launch()
        self._device.wait()
        return time.perf_counter() - started
