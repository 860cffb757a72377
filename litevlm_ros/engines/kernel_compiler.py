"""Compiles the kernels of TensorRT-RTX's plans ahead, in several processes.

TensorRT-RTX compiles a plan's kernels when its execution context is created, 0.4 to 2 s for each of some 70 plans, on
one core however many threads ask for it. It puts them into a runtime cache, with which a context takes 0.05 s.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any

from litevlm_ros.engines.tensorrt_module import load_tensorrt, tensorrt_logger
from litevlm_ros.errors import EngineError
from litevlm_ros.processes import end_with_parent

MOST_WORKERS = 6
"""The most processes: each takes half a gigabyte of memory."""


def runtime_settings(engine: Any, kernels: bytes) -> tuple[Any, Any]:
    """Returns what an execution context of `engine` is created with, and the runtime cache that it fills.

    `kernels` is the serialized cache of an earlier context, b'' for none; TensorRT-RTX ignores one of another version
    or GPU, and then compiles. The cache is None for TensorRT, which compiles nothing when an engine runs. A context
    refers to both results without keeping them alive. Compiling ahead and running must use the same settings, or
    nothing in the cache fits.
    """
    trt = load_tensorrt().module
    strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if not hasattr(engine, "create_runtime_config"):
        return strategy, None
    settings = engine.create_runtime_config()
    settings.set_execution_context_allocation_strategy(strategy)
    # A context has one set of shapes, so it is worth the best kernels for them.
    settings.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    # Each context has a cache of its own: with a common one, TensorRT-RTX 1.4 gives a context the kernels that it
    # compiled for other shapes.
    cache = settings.create_runtime_cache()
    if kernels:
        cache.deserialize(kernels)
    settings.set_runtime_cache(cache)
    return settings, cache


class KernelCompiler:
    """A pool of processes that compile kernels for the GPU at hand; see `kernel_compiler`."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        """For `kernel_compiler`."""
        self._pool = pool

    def submit(self, name: str, plan: bytes) -> Future[bytes]:
        """Begins to compile the kernels of a plan, which `name` names in errors. `finished` returns them."""
        return self._pool.submit(_compile, name, plan)

    @staticmethod
    def finished(kernels: Future[bytes]) -> bytes:
        """Waits for the kernels of a plan, and returns them as a runtime cache. Raises EngineError."""
        try:
            return kernels.result()
        except BrokenProcessPool as error:
            raise EngineError(
                "a process that compiles kernels was ended by the system, most likely because memory ran out (see "
                "`dmesg`); close other programs or add swap, and build again"
            ) from error


@contextmanager
def kernel_compiler(workers: int) -> Iterator[KernelCompiler]:
    """Starts `workers` processes, and ends them when the block ends; after an exception they finish what they are at.

    They need TensorRT-RTX and pycuda.
    """
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, context, initializer=_prepare, initargs=(stop,))
    try:
        yield KernelCompiler(pool)
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


# --- in a worker

_stop: Event | None = None


def _prepare(stop: Event) -> None:
    """Begins a worker: it is silent, and Ctrl-C in a terminal is left to the parent."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():  # it ended before the line above could notice
        os._exit(1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)


@functools.cache
def _runtime() -> Any:
    """Makes the first GPU's primary context current for good, and returns a TensorRT runtime."""
    import pycuda.driver as driver

    try:
        driver.init()
        driver.Device(0).retain_primary_context().push()
    except driver.Error as error:
        raise EngineError(f"CUDA does not start: {error}; see what `nvidia-smi` says") from None
    logger, _ = tensorrt_logger()
    return load_tensorrt().module.Runtime(logger)


def _compile(name: str, plan: bytes) -> bytes:
    """Creates the context of a plan at its only shapes, and returns the runtime cache with its kernels."""
    if _stop is not None and _stop.is_set():
        return b""
    runtime = _runtime()
    _, messages = tensorrt_logger()
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(f"TensorRT does not load {name}, which it has built: {messages.take()}")
    settings, cache = runtime_settings(engine, b"")
    context = engine.create_execution_context(settings)
    if context is None:
        raise EngineError(f"TensorRT does not compile kernels of {name}: {messages.take()}")
    inputs = load_tensorrt().module.TensorIOMode.INPUT
    for index in range(engine.num_io_tensors):
        tensor = engine.get_tensor_name(index)
        if engine.get_tensor_mode(tensor) == inputs and -1 in tuple(engine.get_tensor_shape(tensor)):
            context.set_input_shape(tensor, engine.get_tensor_profile_shape(tensor, 0)[0])
    if missing := context.infer_shapes():
        raise EngineError(f"TensorRT lacks shapes of {name}: {', '.join(missing)}")
    return bytes(cache.serialize())
