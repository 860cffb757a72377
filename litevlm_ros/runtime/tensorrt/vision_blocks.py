"""The vision encoder's blocks: by cuDNN's products where they are right and fast on this GPU, else by plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.block_choice import BlockChoice
from litevlm_ros.runtime.tensorrt.cudnn_library import Cudnn
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.vision_rows import VisionRowKernels
from litevlm_ros.runtime.tensorrt.memory import Room
from litevlm_ros.runtime.tensorrt.vision_products import MlpProducts, PatchProducts, ProjectorProducts, QkvProducts

_BY_PRODUCTS: Mapping[str, Callable[[Cudnn, VisionRowKernels, ModelConfig, str, int, Room], Block]] = {
    "patches": PatchProducts,
    "qkv": QkvProducts,
    "mlp": MlpProducts,
    "projector": ProjectorProducts,
}


class VisionBlocks:
    """Makes and checks blocks. The device must be current in every call."""

    def __init__(
        self, model: ModelConfig, choice: BlockChoice, device: CudaDevice, scratch: Room, computed: str
    ) -> None:
        """`computed` is 'fp16' or 'bf16', and `scratch` the working memory of blocks. Raises EngineError."""
        self._model, self._choice, self._scratch, self._computed = model, choice, scratch, computed
        self._kernels = VisionRowKernels(device, model.vision, computed)

    def block(self, name: str, rows: int) -> Block:
        """Returns the block `name` for so many rows, as `BlockChoice.block` does. Raises EngineError."""

        def products(cudnn: Cudnn) -> Block:
            return _BY_PRODUCTS[name](cudnn, self._kernels, self._model, self._computed, rows, self._scratch)

        return self._choice.block(name, rows, products)

    def close(self) -> None:
        """Frees kernels. No block may be running."""
        self._kernels.close()
