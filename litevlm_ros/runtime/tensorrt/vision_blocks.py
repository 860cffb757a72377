"""The vision encoder's blocks: by cuDNN's products where they are right and fast on this GPU, else by plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.block_check import BlockCheck
from litevlm_ros.runtime.tensorrt.block_choice import BlockChoice
from litevlm_ros.runtime.tensorrt.block_race import BlockRace
from litevlm_ros.runtime.tensorrt.cudnn_library import Cudnn
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.vision_rows import VisionRowKernels
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Room
from litevlm_ros.runtime.tensorrt.plans import BlockPlans
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
        self,
        model: ModelConfig,
        plans: BlockPlans,
        check: BlockCheck,
        race: BlockRace,
        device: CudaDevice,
        memory: DeviceMemory,
        scratch: Room,
        computed: str,
    ) -> None:
        """`computed` is 'fp16' or 'bf16', and `scratch` the working memory of blocks. Raises EngineError."""
        kernels = self._kernels = VisionRowKernels(device, model.vision, computed)
        self._choice = BlockChoice(
            "the vision encoder's",
            lambda cudnn, name, rows: _BY_PRODUCTS[name](cudnn, kernels, model, computed, rows, scratch),
            plans,
            check,
            race,
            device,
            memory,
        )

    def block(self, name: str, rows: int) -> Block:
        """Returns the block `name` for so many rows, as `BlockChoice.block` does. Raises EngineError."""
        return self._choice.block(name, rows)

    def close(self) -> None:
        """Frees kernels, and gives the libraries back. No block may be running."""
        self._kernels.close()
        self._choice.close()
