"""pycuda and cuda.bindings without a GPU: "device" memory is the host's, and kernels run there.

What is enqueued on a stream waits until somebody waits for it, and then runs in order: code that reads too early, or
overwrites a pinned buffer that is still to be copied, fails here as it would on a GPU.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
import re
import threading
import weakref
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import decode_reference
import numpy as np
from host_kernels import run_kernel, with_macros

from litevlm_ros.runtime.tensorrt.kernels.decode import STEP_LAYOUT

_ALIGNMENT = 256
MULTIPROCESSORS, SHARED_BYTES = 5, 166912


class Error(Exception):
    """pycuda.driver.Error."""


class OutOfMemory(Error):
    """pycuda.driver.MemoryError."""


class FakeStream:
    def __init__(self, cuda: FakeCuda, flags: int) -> None:
        assert flags == 1, "a stream that waits for the default stream cannot be captured"
        self.handle = next(cuda.handles)
        self.waiting: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None
        cuda.streams[self.handle] = self

    def enqueue(self, work: Callable[[], None]) -> None:
        (self.waiting if self.recording is None else self.recording).append(work)

    def synchronize(self) -> None:
        assert self.recording is None, "waited for a stream while it is captured"
        self.run(len(self.waiting))

    def run(self, count: int) -> None:
        for _ in range(count):
            self.waiting.pop(0)()


class FakeEvent:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self._stream: FakeStream | None = None

    def record(self, stream: FakeStream) -> None:
        self._stream = stream
        self._mark = mark = lambda: None
        stream.enqueue(mark)

    def synchronize(self) -> None:
        assert self._stream is not None, "waited for an event that was never recorded"
        if self._mark in self._stream.waiting:
            self._stream.run(self._stream.waiting.index(self._mark) + 1)


class Allocation:
    """Device or pinned memory: aligned, filled with what a careless reader would notice."""

    def __init__(self, cuda: FakeCuda, size: int) -> None:
        self._cuda = cuda
        self.size = size
        self._bytes = np.full(size + _ALIGNMENT, 0xAB, np.uint8)
        self.address = -(-self._bytes.ctypes.data // _ALIGNMENT) * _ALIGNMENT
        cuda.live[self.address] = self

    def __int__(self) -> int:
        return self.address

    def get_device_pointer(self) -> int:
        return self.address

    def free(self) -> None:
        self._cuda.check_current()
        del self._cuda.live[self.address]


class FakeCuda:
    """One GPU and the modules through which it is used."""

    def __init__(self, total: int = 1 << 30) -> None:
        self.total = total
        self.handles = itertools.count(1000)
        self.streams: dict[int, FakeStream] = {}
        self.live: dict[int, Allocation] = {}
        self.taken = 0
        """Bytes that libraries have allocated."""
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.modules: weakref.WeakSet[_Module] = weakref.WeakSet()
        """The modules of kernels that are loaded."""
        self.compute_capability = 9, 0
        self.launches = 0
        self.compiled = 0
        """Programs that NVRTC has compiled."""
        self.refuse_cooperation = False
        self.refuse_capture = False
        self.retained = 0
        self._current = threading.local()
        self._source = ""

    # Contexts

    def check_current(self) -> None:
        if not getattr(self._current, "depth", 0):
            raise Error("no context is current on this thread")

    def push(self) -> None:
        self._current.depth = getattr(self._current, "depth", 0) + 1

    def pop(self) -> None:
        self.check_current()
        self._current.depth -= 1

    @property
    def depth(self) -> int:
        """The number of contexts that are current on this thread."""
        return getattr(self._current, "depth", 0)

    def _retain(self) -> Any:
        self.retained += 1

        def detach() -> None:
            self.retained -= 1
            self.push()  # as pycuda does

        return SimpleNamespace(push=self.push, detach=detach)

    # Memory

    def memory(self) -> tuple[int, int]:
        self.check_current()
        return self.total - self.taken - sum(block.size for block in self.live.values()), self.total

    def allocate(self, size: int) -> Allocation:
        if size > self.memory()[0]:
            raise OutOfMemory("cuMemAlloc failed: out of memory")
        return Allocation(self, size)

    def _pinned(self, shape: tuple[int, ...], dtype: Any, mem_flags: int) -> Any:
        assert mem_flags == 2
        self.check_current()
        block = Allocation(self, max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize))
        block.__array_interface__ = {"version": 3, "shape": shape, "typestr": np.dtype(dtype).str,  # type: ignore[attr-defined]
                                     "data": (block.address, False)}  # fmt: skip
        array = np.asarray(block)
        array[...] = 0
        return array

    def _move(self, target: int, source: int, size: int, stream: FakeStream) -> None:
        self.check_current()
        for address in (target, source):
            self.check_range(address, size)
        stream.enqueue(lambda: ctypes.memmove(target, source, size))

    def check_range(self, address: int, size: int) -> None:
        """Raises Error unless these bytes lie in one live allocation."""
        if not any(start <= address and address + size <= start + block.size for start, block in self.live.items()):
            raise Error(f"an illegal memory access: {size} bytes at {address}")

    # Modules

    def pycuda(self) -> ModuleType:
        """pycuda.driver."""
        module = ModuleType("pycuda.driver")
        gpu = SimpleNamespace(
            retain_primary_context=self._retain,
            name=lambda: "Fake GPU",
            compute_capability=lambda: self.compute_capability,
            get_attribute=lambda number: number,
        )

        def upload(target: int, source: Any, stream: FakeStream) -> None:
            assert source.flags.c_contiguous
            self._move(int(target), source.ctypes.data, source.nbytes, stream)

        def download(target: Any, source: int, stream: FakeStream) -> None:
            assert target.flags.c_contiguous
            self._move(target.ctypes.data, int(source), target.nbytes, stream)

        def clear(target: int, value: int, size: int, stream: FakeStream) -> None:
            self.check_range(target, size)
            stream.enqueue(lambda: ctypes.memset(target, value, size))

        def load(source: bytes) -> Any:
            module = _Module(self, source.decode())
            self.modules.add(module)
            return module

        vars(module).update(
            Error=Error,
            MemoryError=OutOfMemory,
            init=lambda: None,
            Device=lambda index: gpu,
            Context=SimpleNamespace(pop=self.pop, synchronize=self._synchronize),
            Stream=lambda flags: FakeStream(self, flags),
            Event=FakeEvent,
            device_attribute=SimpleNamespace(
                MULTIPROCESSOR_COUNT=MULTIPROCESSORS, MAX_SHARED_MEMORY_PER_BLOCK_OPTIN=SHARED_BYTES
            ),
            event_flags=SimpleNamespace(BLOCKING_SYNC=1, DISABLE_TIMING=2),
            host_alloc_flags=SimpleNamespace(DEVICEMAP=2),
            mem_alloc=self.allocate,
            mem_get_info=self.memory,
            pagelocked_zeros=self._pinned,
            memset_d8_async=clear,
            memcpy_htod_async=upload,
            memcpy_dtoh_async=download,
            memcpy_dtod_async=lambda target, source, size, stream: self._move(target, source, size, stream),
            module_from_buffer=load,
        )
        return module

    def bindings(self) -> tuple[ModuleType, ModuleType]:
        """cuda.bindings.driver and cuda.bindings.nvrtc."""
        driver, nvrtc = ModuleType("cuda.bindings.driver"), ModuleType("cuda.bindings.nvrtc")
        errors = ("STREAM_CAPTURE_UNSUPPORTED", "INVALID_IMAGE", "COOPERATIVE_LAUNCH_TOO_LARGE")
        result = enum.Enum("result", ["CUDA_SUCCESS", *(f"CUDA_ERROR_{name}" for name in errors)])
        done = result.CUDA_SUCCESS

        def begin(stream: FakeStream, mode: str) -> tuple[Any, ...]:
            assert mode == "relaxed"
            if self.refuse_capture:
                return (result.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,)
            assert stream.recording is None
            stream.recording = []
            return (done,)

        def end(stream: FakeStream) -> tuple[Any, ...]:
            work, stream.recording = stream.recording, None
            return done, work

        def instantiate(graph: list[Callable[[], None]], flags: int) -> tuple[Any, ...]:
            handle = next(self.handles)
            self.graphs[handle] = graph
            return done, handle

        def launch(executable: int, stream: FakeStream) -> tuple[Any, ...]:
            self.check_current()
            self.launches += 1
            for work in self.graphs[executable]:
                stream.enqueue(work)
            return (done,)

        def destroy(executable: int) -> tuple[Any, ...]:
            del self.graphs[executable]
            return (done,)

        def pop() -> tuple[Any, ...]:
            self.pop()
            return (done,)

        def load(code: bytes) -> tuple[Any, ...]:
            self.check_current()
            if b" decode(" not in code:
                return result.CUDA_ERROR_INVALID_IMAGE, None
            module = _Module(self, code.decode())
            self.modules.add(module)
            return done, module

        def unload(module: _Module) -> tuple[Any, ...]:
            self.check_current()
            self.modules.remove(module)
            return (done,)

        def launch_together(function: _Cooperative, *sizes_and_rest: Any) -> tuple[Any, ...]:
            *sizes, shared, stream, arguments = sizes_and_rest
            self.check_current()
            if self.refuse_cooperation:
                return (result.CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE,)
            blocks = int(function.macros["TEAMS"]) * int(function.macros["TEAM"])
            assert blocks <= MULTIPROCESSORS
            assert sizes == [blocks, 1, 1, 32 * (int(function.macros["WARPS"]) + 1), 1, 1]
            assert shared == function.shared_bytes == int(function.macros["SHARED_BYTES"]) == SHARED_BYTES - 1024
            argument = ctypes.string_at(ctypes.c_void_p.from_address(arguments).value, STEP_LAYOUT.size)
            check = self.check_range
            stream.enqueue(lambda: decode_reference.run_step(check, function.macros, blocks, argument))
            return (done,)

        def set_attribute(function: _Cooperative, attribute: str, value: int) -> tuple[Any, ...]:
            assert attribute == "shared"
            function.shared_bytes = value
            return (done,)

        vars(driver).update(
            CUresult=result,
            CUfunction_attribute=SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared"),
            cuModuleLoadData=load,
            cuModuleUnload=unload,
            cuModuleGetFunction=lambda module, name: (done, module.get_cooperative(name)),
            cuFuncSetAttribute=set_attribute,
            cuLaunchCooperativeKernel=launch_together,
            CUstream=lambda handle: self.streams[handle],
            CUstreamCaptureMode=SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED="relaxed"),
            cuStreamBeginCapture=begin,
            cuStreamEndCapture=end,
            cuGraphInstantiate=instantiate,
            cuGraphDestroy=lambda graph: (done,),
            cuGraphLaunch=launch,
            cuGraphExecDestroy=destroy,
            cuCtxGetCurrent=lambda: (done, 7 if self.depth else 0),
            cuCtxPopCurrent=pop,
        )

        def create(source: bytes, name: bytes, count: int, headers: Any, names: Any) -> tuple[Any, _Program]:
            return done, _Program(source)

        def build(program: _Program, count: int, options: list[bytes]) -> tuple[Any, ...]:
            assert count == len(options)
            architecture, *macros = (option.decode() for option in options)
            assert architecture == "--gpu-architecture=sm_{}{}".format(*self.compute_capability)
            self.compiled += 1
            assert all(macro.startswith("-D") for macro in macros)
            defined = dict(macro[2:].split("=", 1) for macro in macros)
            program.code = with_macros(program.source.decode(), defined).encode()
            return (done,)

        def copy(program: _Program, buffer: bytes) -> tuple[Any, ...]:
            ctypes.memmove(buffer, program.code, len(program.code))
            return (done,)

        vars(nvrtc).update(
            nvrtcResult=SimpleNamespace(NVRTC_SUCCESS=done),
            nvrtcVersion=lambda: (done, 12, 6),
            nvrtcCreateProgram=create,
            nvrtcCompileProgram=build,
            nvrtcGetProgramLogSize=lambda program: (done, 1),
            nvrtcGetProgramLog=lambda program, buffer: (done,),
            nvrtcGetCUBINSize=lambda program: (done, len(program.code)),
            nvrtcGetCUBIN=copy,
            nvrtcDestroyProgram=lambda program: (done,),
        )
        return driver, nvrtc

    def _synchronize(self) -> None:
        self.check_current()
        for stream in self.streams.values():
            stream.synchronize()


class _Program:
    """A program of NVRTC, whose machine code is the source with its macros."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.code = b""


class _Module:
    def __init__(self, cuda: FakeCuda, source: str) -> None:
        self._cuda, self._source = cuda, source

    def get_function(self, name: str) -> _Function:
        return _Function(self._cuda, self._source, name)

    def get_cooperative(self, name: bytes) -> _Cooperative:
        assert name == b"decode"
        return _Cooperative(self._source)


class _Cooperative:
    """The kernel of decode.cu, in whose place decode_reference.py computes."""

    def __init__(self, source: str) -> None:
        self.macros = dict(re.findall(r"#define (\w+) (.*)\n", source.partition("//")[0]))
        self.shared_bytes = 0


class _Function:
    def __init__(self, cuda: FakeCuda, source: str, name: str) -> None:
        self._cuda, self._source, self._name = cuda, source, name

    def prepare(self, kinds: str) -> _Function:
        self._kinds = kinds
        return self

    def prepared_async_call(
        self, grid: tuple[int, ...], block: tuple[int, ...], stream: FakeStream, *arguments: int
    ) -> None:
        self._cuda.check_current()
        typed = list(zip(self._kinds, arguments, strict=True))
        stream.enqueue(lambda: run_kernel(self._source, self._name, grid, block, typed))
