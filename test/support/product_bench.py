"""A fake GPU with cuDNN on which blocks of products are made and run."""

from __future__ import annotations

from typing import Any, TypeVar

from fake_cudnn import FakeCudnn

from litevlm_ros.engines.graphs import block_graphs
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.block_check import BlockCheck
from litevlm_ros.runtime.tensorrt.cudnn_library import Cudnn
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Room

_Kernels = TypeVar("_Kernels", bound=Any)


class ProductBench:
    """All that blocks need but their kernels. The device must be current, but in `close`."""

    def __init__(self, cudnn: FakeCudnn) -> None:
        self.fake, self.device = cudnn, CudaDevice()
        self._kept: list[Any] = []
        with self.device:
            self.memory = DeviceMemory(self.device)
            self.scratch = Room(self.device, self.memory, "working memory")
            self.cudnn = Cudnn(self.device, self.memory)

    def keep(self, kernels: _Kernels) -> _Kernels:
        """Returns `kernels`, which `close` frees."""
        self._kept.append(kernels)
        return kernels

    def upload(self, array: Any) -> int:
        """The address of a copy."""
        address = self.memory.allocate("test", array.nbytes)
        self.memory.write(address, array)
        return address

    def verdict(self, part: str, model: ModelConfig, name: str, rows: int, block: Block, computed: str) -> str:
        """The verdict of BlockCheck on a block."""
        check = BlockCheck(part, block_graphs(part, computed, model), model, computed, self.device, self.memory)
        return check.wrong(name, rows, block)

    def close(self) -> None:
        with self.device:
            for kernels in self._kept:
                kernels.close()
            self.cudnn.close()
            self.memory.free()
        self.device.close()
