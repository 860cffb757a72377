"""The text decoder's blocks: by cuDNN's products where they are right on this GPU, else by TensorRT's plans.

A head that is packed is multiplied by a kernel of this package on every GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from weakref import WeakValueDictionary

from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.block_check import BlockCheck
from litevlm_ros.runtime.tensorrt.cudnn_library import Cudnn
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.head import HeadKernel
from litevlm_ros.runtime.tensorrt.kernels.rows import RowKernels
from litevlm_ros.runtime.tensorrt.libraries import Libraries
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Room
from litevlm_ros.runtime.tensorrt.plans import BlockPlans, PlanBlock
from litevlm_ros.runtime.tensorrt.product_blocks import HeadProducts, MlpProducts, PackedHead, QkvProducts

_BY_PRODUCTS: Mapping[str, Callable[[Cudnn, RowKernels, TextConfig, str, int, Room], Block]] = {
    "qkv": QkvProducts,
    "mlp": MlpProducts,
    "head": HeadProducts,
}


class TextBlocks:
    """Makes and checks blocks. The device must be current in every call."""

    def __init__(
        self,
        config: TextConfig,
        plans: BlockPlans,
        check: BlockCheck,
        device: CudaDevice,
        memory: DeviceMemory,
        scratch: Room,
        computed: str,
        *,
        head_is_packed: bool,
    ) -> None:
        """`computed` is 'fp16' or 'bf16', and `scratch` the working memory of blocks. Raises EngineError."""
        self._config, self._computed = config, computed
        self._plans, self._check, self._scratch = plans, check, scratch
        self._kernels = RowKernels(device, config, computed)
        self._libraries = Libraries.borrow(device, memory)
        self._head = HeadKernel(device, config, computed) if head_is_packed else None
        self._made: WeakValueDictionary[tuple[str, int], Block] = WeakValueDictionary()

    def block(self, name: str, rows: int) -> Block:
        """Returns the block `name` for so many rows; further calls return the same while somebody keeps it.

        Raises EngineError if neither cuDNN nor TensorRT computes it right, or if there is no room.
        """

        def by_cudnn(cudnn: Cudnn) -> Block:
            return _BY_PRODUCTS[name](cudnn, self._kernels, self._config, self._computed, rows, self._scratch)

        def by_engine() -> Block:
            return self._plans.block(name, rows)

        def check(block: Block) -> str:
            return "" if isinstance(block, PlanBlock) else self._check.wrong(name, rows, block)

        block = self._made.get((name, rows))
        if block is None and name == "head" and self._head is not None:
            block = PackedHead(self._head, self._kernels, self._config, rows, self._scratch)
            self._made[name, rows] = block
        elif block is None:
            what = f"the text decoder's block {name} of {rows} rows"
            block = self._made[name, rows] = self._libraries.make(what, by_cudnn, by_engine, check)
        return block

    def close(self) -> None:
        """Frees kernels, and gives the libraries back. No block may be running."""
        self._kernels.close()
        if self._head is not None:
            self._head.close()
        self._libraries.give_back()
