"""The GPU as this package uses it: its primary context, one stream, and CUDA graphs that are launched on it.

pycuda owns memory, streams and events; `cuda.bindings` adds what pycuda lacks (graphs, NVRTC) on the same handles.
The primary context is the one that TensorRT, the CUDA runtime and PyTorch use too, so all of them share pointers.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from litevlm_ros.errors import EngineError

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: the stream does not wait for the legacy default stream, which capture would forbid."""


class CudaDevice:
    """The first GPU. `with device:` makes it current for the block and turns CUDA's errors into EngineError.

    Created, used and closed by one thread. `spin` waits for the GPU in a loop, which is faster by some 30 µs and takes
    a core; otherwise the thread sleeps. pycuda gives the GIL back while it waits in either way.
    """

    def __init__(self, *, spin: bool = False) -> None:
        """Retains the primary context. Raises EngineError if there is no GPU or its driver does not start."""
        import pycuda.driver as driver

        self.driver: Any = driver
        try:
            driver.init()
            gpu = driver.Device(0)
            self._context = gpu.retain_primary_context()
        except driver.Error as error:
            raise EngineError(f"CUDA does not start: {error}; see what `nvidia-smi` says") from error
        self.name = str(gpu.name())
        self.compute_capability: tuple[int, int] = tuple(gpu.compute_capability())
        attributes = driver.device_attribute
        self.multiprocessors = int(gpu.get_attribute(attributes.MULTIPROCESSOR_COUNT))
        self.most_shared_bytes = int(gpu.get_attribute(attributes.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN))
        """The most shared memory of a block that asks for more than others get."""
        self._event_flags = driver.event_flags.DISABLE_TIMING
        if not spin:
            self._event_flags |= driver.event_flags.BLOCKING_SYNC
        with self:
            self.stream = driver.Stream(NON_BLOCKING)
            self._done = self.event()

    def __enter__(self) -> CudaDevice:
        self._context.push()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.driver.Context.pop()
        if isinstance(error, self.driver.Error):
            raise EngineError(
                f"the GPU failed: {error}; load the model again, and if it repeats, see `dmesg`"
            ) from error

    def event(self) -> Any:
        """Makes a pycuda event that waits in a loop or asleep, as `spin` says."""
        return self.driver.Event(self._event_flags)

    def wait(self) -> None:
        """Waits until all work on the stream is done."""
        self._done.record(self.stream)
        self._done.synchronize()

    def memory(self) -> tuple[int, int]:
        """Returns the free and the total bytes of the device, over all processes."""
        free, total = self.driver.mem_get_info()
        return int(free), int(total)

    def close(self) -> None:
        """Gives the primary context back. All memory, graphs and engines must be gone."""
        from cuda.bindings import driver as bindings

        with self:
            del self.stream, self._done
        _, before = bindings.cuCtxGetCurrent()
        self._context.detach()
        # pycuda makes the context current to release it, and leaves it on the thread's stack.
        _, after = bindings.cuCtxGetCurrent()
        if int(after) != int(before):
            bindings.cuCtxPopCurrent()


class CudaGraph:
    """Work on the device's stream, addresses and sizes included, that is recorded once and launched as a whole.

    A decode step is then one call instead of some 300.
    """

    def __init__(self, device: CudaDevice, record: Callable[[], None]) -> None:
        """Records what `record` enqueues; nothing of that runs. Raises EngineError if it cannot be captured."""
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
        """Enqueues the whole work. Raises EngineError if CUDA refuses."""
        self._check(self._driver.cuGraphLaunch(self._executable, self._stream))

    def close(self) -> None:
        """Frees the graph. It must not be running."""
        self._driver.cuGraphExecDestroy(self._executable)

    def _check(self, result: tuple[Any, ...]) -> tuple[Any, ...]:
        error, *values = result
        if error != self._driver.CUresult.CUDA_SUCCESS:
            raise EngineError(f"a CUDA graph failed: {getattr(error, 'name', error)}")
        return tuple(values)
