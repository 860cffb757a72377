"""The GPU as this package uses it: the primary context, one stream, and waiting for it.

pycuda owns memory, streams and events; `cuda.bindings` adds what pycuda lacks (graphs, NVRTC) on the same handles.
The primary context is the one that TensorRT, the CUDA runtime and PyTorch use too, so all of them share pointers.
"""

from __future__ import annotations

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
        """Raises EngineError if there is no GPU or its driver does not start."""
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
        """A new pycuda event on which to wait as `spin` says."""
        return self.driver.Event(self._event_flags)

    def wait(self) -> None:
        """Returns when all work on the stream is done."""
        self._done.record(self.stream)
        self._done.synchronize()

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of the device, whoever uses them."""
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
