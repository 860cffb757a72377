"""A kernel whose blocks wait for each other, so that all of them must run at the same time."""

from __future__ import annotations

import ctypes
from typing import Any

from litevlm_ros.errors import EngineError
from litevlm_ros.runtime.tensorrt.device import CudaDevice


class CooperativeKernel:
    """A kernel that is launched with a structure as its only argument.

    pycuda cannot launch it, so `cuda.bindings` does that, on the same stream. The device must be current in every call.
    """

    def __init__(
        self, device: CudaDevice, code: bytes, name: str, blocks: int, threads: int, shared_bytes: int
    ) -> None:
        """Loads the kernel `name` of machine code. Raises EngineError if the driver refuses it.

        It is launched with `blocks` blocks, each with `threads` threads and `shared_bytes` bytes of shared memory.
        """
        from cuda.bindings import driver

        self._driver: Any = driver
        self._stream = driver.CUstream(device.stream.handle)
        self._blocks, self._threads, self._shared_bytes = blocks, threads, shared_bytes
        (self._module,) = self._check(driver.cuModuleLoadData(code))
        try:
            (self._function,) = self._check(driver.cuModuleGetFunction(self._module, name.encode()))
            more_than_usual = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self._check(driver.cuFuncSetAttribute(self._function, more_than_usual, shared_bytes))
        except EngineError:
            self.close()
            raise

    def launch(self, argument: bytes) -> None:
        """Enqueues the kernel. `argument` is copied now. Raises EngineError if the GPU has no room for all blocks."""
        structure = ctypes.create_string_buffer(argument, len(argument))
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(structure))
        grid, block = (self._blocks, 1, 1), (self._threads, 1, 1)
        self._check(
            self._driver.cuLaunchCooperativeKernel(
                self._function, *grid, *block, self._shared_bytes, self._stream, ctypes.addressof(arguments)
            )
        )

    def most_clusters(self, size: int) -> int:
        """Returns how many clusters of `size` blocks run at the same time. Raises EngineError."""
        launch, attribute = self._driver.CUlaunchConfig(), self._driver.CUlaunchAttribute()
        launch.gridDimX, launch.gridDimY, launch.gridDimZ = size, 1, 1
        launch.blockDimX, launch.blockDimY, launch.blockDimZ = self._threads, 1, 1
        launch.sharedMemBytes = self._shared_bytes
        attribute.id = self._driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
        attribute.value.clusterDim.x, attribute.value.clusterDim.y, attribute.value.clusterDim.z = size, 1, 1
        launch.attrs, launch.numAttrs = [attribute], 1
        (count,) = self._check(self._driver.cuOccupancyMaxActiveClusters(self._function, launch))
        return int(count)

    def close(self) -> None:
        """Unloads the kernel. It must not be running."""
        self._driver.cuModuleUnload(self._module)

    def _check(self, result: tuple[Any, ...]) -> tuple[Any, ...]:
        error, *values = result
        if error != self._driver.CUresult.CUDA_SUCCESS:
            raise EngineError(f"the driver refuses a cooperative kernel: {getattr(error, 'name', error)}")
        return tuple(values)
