"""Work on a stream, recorded once and launched as a whole: a decode step is one call instead of some 300."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litevlm_ros.errors import EngineError
from litevlm_ros.runtime.tensorrt.device import CudaDevice


class CudaGraph:
    """What `record` enqueues on the device's stream, addresses and sizes included. It can be launched repeatedly."""

    def __init__(self, device: CudaDevice, record: Callable[[], None]) -> None:
        """Calls `record` once; nothing that it enqueues runs. Raises EngineError if it cannot be captured."""
        from cuda.bindings import driver

        self._driver: Any = driver
        self._stream = driver.CUstream(device.stream.handle)
        # Relaxed: garbage collection or TensorRT may allocate or free meanwhile, which is not part of the graph.
        self._check(
            driver.cuStreamBeginCapture(self._stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
        )
        try:
            record()
        except BaseException:
            driver.cuStreamEndCapture(self._stream)
            raise
        (graph,) = self._check(driver.cuStreamEndCapture(self._stream))
        try:
            (self._executable,) = self._check(driver.cuGraphInstantiate(graph, 0))
        finally:
            driver.cuGraphDestroy(graph)

    def launch(self) -> None:
        """Enqueues the whole work. Raises EngineError."""
        self._check(self._driver.cuGraphLaunch(self._executable, self._stream))

    def close(self) -> None:
        """Frees the graph. It must not be running."""
        self._driver.cuGraphExecDestroy(self._executable)

    def _check(self, result: tuple[Any, ...]) -> tuple[Any, ...]:
        error, *values = result
        if error != self._driver.CUresult.CUDA_SUCCESS:
            raise EngineError(f"a CUDA graph failed: {getattr(error, 'name', error)}")
        return tuple(values)
