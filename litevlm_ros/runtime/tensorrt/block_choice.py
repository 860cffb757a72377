"""The choice of what computes a block: cuDNN's products, or TensorRT's plan where those are not right or slower."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakValueDictionary

from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.block_check import BlockCheck
from litevlm_ros.runtime.tensorrt.block_race import BlockRace
from litevlm_ros.runtime.tensorrt.cudnn_library import Cudnn
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.libraries import Libraries
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory
from litevlm_ros.runtime.tensorrt.plans import BlockPlans, PlanBlock


class BlockChoice:
    """Makes and checks the blocks of one part. The device must be current in every call."""

    def __init__(
        self,
        owner: str,
        plans: BlockPlans,
        check: BlockCheck,
        race: BlockRace,
        device: CudaDevice,
        memory: DeviceMemory,
    ) -> None:
        """`owner` names the part in messages, such as "the text decoder's"."""
        self._owner, self._plans = owner, plans
        self._check, self._race = check, race
        self._libraries = Libraries.borrow(device, memory)
        self._made: WeakValueDictionary[tuple[str, int], Block] = WeakValueDictionary()

    def block(self, name: str, rows: int, products: Callable[[Cudnn], Block]) -> Block:
        """Returns the block `name` for so many rows; further calls return the same while somebody keeps it.

        `products` makes it from cuDNN's products, and raises CudnnRefusal if cuDNN does not compute them. Raises
        EngineError if neither cuDNN nor TensorRT computes the block right, or if there is no room.
        """

        def by_engine() -> Block:
            return self._plans.block(name, rows)

        def check(block: Block) -> str:
            # Plans were checked when they were loaded.
            return "" if isinstance(block, PlanBlock) else self._check.wrong(name, rows, block)

        block = self._made.get((name, rows))
        if block is None:
            what = f"{self._owner} block {name} of {rows} rows"
            block = self._libraries.make(what, products, by_engine, check)
            if not isinstance(block, PlanBlock) and self._plans.holds(name, rows):
                block = self._race.winner(name, rows, self._libraries.cudnn_version, block, by_engine)
            self._made[name, rows] = block
        return block

    def close(self) -> None:
        """Gives the libraries back. No block may be running."""
        self._libraries.give_back()
