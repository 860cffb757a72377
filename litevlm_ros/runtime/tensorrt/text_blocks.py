"""The text decoder's blocks: by cuDNN's products where they are right and fast on this GPU, else by TensorRT's plans.

A head that is packed is multiplied by a kernel of this package on every GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.block_choice import BlockChoice
from litevlm_ros.runtime.tensorrt.cudnn_library import Cudnn
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.head import HeadKernel
from litevlm_ros.runtime.tensorrt.kernels.rows import RowKernels
from litevlm_ros.runtime.tensorrt.memory import Room
from litevlm_ros.runtime.tensorrt.text_products import HeadProducts, MlpProducts, PackedHead, QkvProducts

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
        choice: BlockChoice,
        device: CudaDevice,
        scratch: Room,
        computed: str,
        *,
        head_is_packed: bool,
    ) -> None:
        """`computed` is 'fp16' or 'bf16', and `scratch` the working memory of blocks. Raises EngineError."""
        self._config, self._choice, self._scratch, self._computed = config, choice, scratch, computed
        self._kernels = RowKernels(device, config, computed)
        self._head = HeadKernel(device, config, computed) if head_is_packed else None

    def block(self, name: str, rows: int) -> Block:
        """Returns the block `name` for so many rows, as `BlockChoice.block` does. Raises EngineError."""
        if name == "head" and self._head is not None:
            return PackedHead(self._head, self._kernels, self._config, rows, self._scratch)

        def products(cudnn: Cudnn) -> Block:
            return _BY_PRODUCTS[name](cudnn, self._kernels, self._config, self._computed, rows, self._scratch)

        return self._choice.block(name, rows, products)

    def close(self) -> None:
        """Frees kernels. No block may be running."""
        self._kernels.close()
        if self._head is not None:
            self._head.close()
