"""A TensorRT, or TensorRT-RTX, whose engines are ONNX graphs, run by ONNX Runtime on the fake GPU's memory."""

from __future__ import annotations

import ctypes
import enum
import importlib.machinery
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from fake_cuda import FakeCuda

from litevlm_ros.engines import fingerprint, tensorrt_module
from litevlm_ros.engines.fingerprint import hash_file, hash_weights
from litevlm_ros.engines.sidecar import EngineSidecar, Profile
from litevlm_ros.machine import Device
from litevlm_ros.model_directory import TEXT, VISION, engine_name
from litevlm_ros.runtime.tensorrt import engine_files

VERSION = "10.3.0"
_TYPES = {"tensor(float)": ("FLOAT", np.float32), "tensor(int64)": ("INT64", np.int64),
          "tensor(uint8)": ("UINT8", np.uint8)}  # fmt: skip
_PROFILES = "profiles"

MOST_TILES = 3
MOST_CONTEXT = 700
MOST_VISUAL = 60


def install(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda, *, rtx: bool = False) -> None:
    """Makes `cuda` this machine's GPU, and pycuda, cuda.bindings and TensorRT 10.3 its packages.

    With `rtx` it is TensorRT-RTX, of the same version number so that the same sidecars may be written.
    """
    driver, nvrtc = cuda.bindings()
    pycuda, tensorrt = cuda.pycuda(), _module(cuda, rtx)
    parents = {"pycuda": {"driver": pycuda}, "cuda": {}, "cuda.bindings": {"driver": driver, "nvrtc": nvrtc}}
    modules = {"pycuda.driver": pycuda, "cuda.bindings.driver": driver, "cuda.bindings.nvrtc": nvrtc,
               tensorrt.__name__: tensorrt}  # fmt: skip
    for name, attributes in parents.items():
        modules[name] = ModuleType(name)
        vars(modules[name]).update(attributes, __path__=[])
    for name, module in modules.items():
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    device = Device("Fake GPU", (9, 0), cuda.total, integrated=False)
    for user in (fingerprint, engine_files):
        monkeypatch.setattr(user, "find_device", lambda index=0: device)
    forget()


def forget() -> None:
    """Lets the TensorRT that was loaded before not outlive its test. To be called after each test with `install`."""
    tensorrt_module.load_tensorrt.cache_clear()
    tensorrt_module.tensorrt_logger.cache_clear()


def write_engines(model: Path, directory: Path, precision: str = "fp16", **changes: Any) -> None:
    """Engines and sidecars in `directory` for the graphs and weights of `model`."""
    any_cache = (1, 256, MOST_CONTEXT)

    def text(new: tuple[int, int, int], visual: int) -> dict[str, tuple[int, int, int]]:
        sizes = dict.fromkeys(("past_key", "past_value"), any_cache)
        logits = (1, 1, 8) if new[2] > 1 else (1, 1, 1)
        return {"input_ids": new, "position_ids": new, "logit_positions": logits,
                "visual_tokens": (1, visual, visual), **sizes}  # fmt: skip

    profiles = {
        VISION: (Profile("tiles", {"pixels": (1, 1, MOST_TILES)}),),
        TEXT: (Profile("prefill", text((1, 64, 96), MOST_VISUAL)), Profile("decode", text((1, 1, 1), 1))),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for part, shapes in profiles.items():
        graph = onnx.load(model / f"{part}.onnx")
        # Engines are built from graphs that keep the decoder's hidden states to themselves.
        shown = [output for output in graph.graph.output if output.name != "hidden"]
        del graph.graph.output[:]
        graph.graph.output.extend(shown)
        onnx.helper.set_model_props(graph, {_PROFILES: json.dumps([profile.shapes for profile in shapes])})
        file = directory / engine_name(part, precision)
        onnx.save(graph, file)
        facts: dict[str, Any] = {
            "file": file.name, "part": part, "flavour": "tensorrt", "version": VERSION,
            "compute_capabilities": ("9.0",), "target": "9.0",
            "engine_sha256": hash_file(file), "engine_bytes": file.stat().st_size,
            "weights_sha256": hash_weights(model / part), "graph_sha256": "", "precision_asked": precision,
            "precision_built": precision, "precision_reason": "", "calibration": "", "profiles": shapes,
            "max_prompt": 96 if part == TEXT else 0, "max_context": MOST_CONTEXT if part == TEXT else 0,
            "max_tiles": MOST_TILES if part == VISION else 0, "activation_bytes": 0, "build_seconds": 1.0,
            "built_at": "2025-01-01T00:00:00Z",
        }  # fmt: skip
        EngineSidecar(**{**facts, **changes}).write(directory)


class _Strategy(enum.Enum):
    USER_MANAGED = 2


class _Kernels(enum.Enum):
    EAGER = 1


def _module(cuda: FakeCuda, rtx: bool) -> ModuleType:
    module = ModuleType("tensorrt_rtx_bindings" if rtx else "tensorrt")

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, contents: Any) -> _Engine | None:
            cuda.check_current()
            try:
                return (_RtxEngine if rtx else _Engine)(cuda, bytes(contents))
            except Exception as error:  # ONNX Runtime's own exceptions have no common base
                self._logger.log(ILogger.ERROR, f"magicTag: {type(error).__name__}")
                return None

    vars(module).update(
        __version__=VERSION,
        ILogger=ILogger,
        Runtime=Runtime,
        ExecutionContextAllocationStrategy=_Strategy,
        DynamicShapesKernelSpecializationStrategy=_Kernels,
    )
    return module


class _Engine:
    def __init__(self, cuda: FakeCuda, contents: bytes) -> None:
        self.cuda = cuda
        self._size = len(contents)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(contents, options, providers=["CPUExecutionProvider"])
        self.profiles = json.loads(self.session.get_modelmeta().custom_metadata_map[_PROFILES])
        self.num_optimization_profiles = len(self.profiles)
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.outputs = {value.name: value for value in self.session.get_outputs()}
        self.all = self.inputs | self.outputs
        self.num_io_tensors = len(self.all)
        cuda.taken += self._size

    def __del__(self) -> None:
        self.cuda.taken -= self._size

    def get_tensor_name(self, index: int) -> str:
        return list(self.all)[index]

    def get_tensor_shape(self, name: str) -> list[int]:
        return [size if isinstance(size, int) else -1 for size in self.all[name].shape]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=_TYPES[self.all[name].type][0])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        sizes = self.profiles[profile][name.split(".")[0]]
        return [[size, *self.get_tensor_shape(name)[1:]] for size in sizes]

    def create_execution_context(self, strategy: _Strategy) -> _Context:
        assert strategy is _Strategy.USER_MANAGED
        self.cuda.check_current()
        return _Context(self)


class _RtxEngine(_Engine):
    """Compiles for each new context, unless the runtime cache knows its way already."""

    def create_runtime_config(self) -> Any:
        settings = SimpleNamespace(strategy=None, cache=None, create_runtime_cache=_RuntimeCache)
        settings.set_execution_context_allocation_strategy = lambda strategy: setattr(settings, "strategy", strategy)
        settings.set_runtime_cache = lambda cache: setattr(settings, "cache", cache)
        return settings

    def create_execution_context(self, settings: Any) -> _Context:
        assert settings.dynamic_shapes_kernel_specialization_strategy is _Kernels.EAGER
        settings.cache.kernels += 1
        return super().create_execution_context(settings.strategy)


class _RuntimeCache:
    def __init__(self) -> None:
        self.kernels = 0

    def serialize(self) -> bytes:
        return b"kernels " * self.kernels

    def deserialize(self, contents: bytes) -> bool:
        self.kernels = len(contents) // 8
        return True


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._cuda = engine.cuda
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._profile = 0
        self._scratch = 0
        self._ran = False

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._profile = profile
        return profile < self._engine.num_optimization_profiles

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        limits = self._engine.profiles[self._profile].get(name.split(".")[0])
        if limits and not limits[0] <= shape[0] <= limits[2]:
            return False
        self._shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in self._engine.all and address % 256 == 0

    def infer_shapes(self) -> list[str]:
        return [name for name in self._engine.inputs if name not in self._shapes]

    def update_device_memory_size_for_shapes(self) -> int:
        return 1000 * max(shape[0] for shape in self._shapes.values())

    def set_device_memory(self, address: int, size: int) -> None:
        self._cuda.check_range(address, size)
        self._scratch = address if size >= self.update_device_memory_size_for_shapes() else 0

    def execute_async_v3(self, handle: int) -> bool:
        stream = self._cuda.streams[handle]
        self._cuda.check_current()
        if not self._scratch or self._addresses.keys() != self._engine.all.keys():
            return False
        if stream.recording is not None and not self._ran:
            return False  # TensorRT allocates at the first run, which a capture does not take
        self._ran = True
        stream.enqueue(self._run)
        return True

    def _run(self) -> None:
        feed = {}
        for name, value in self._engine.inputs.items():
            dtype, shape = _TYPES[value.type][1], self._shapes[name]
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            self._cuda.check_range(self._addresses[name], size)
            feed[name] = np.frombuffer(ctypes.string_at(self._addresses[name], size), dtype).reshape(shape)
        results = self._engine.session.run(list(self._engine.outputs), feed)
        for name, result in zip(self._engine.outputs, results, strict=True):
            self._cuda.check_range(self._addresses[name], result.nbytes)
            ctypes.memmove(self._addresses[name], np.ascontiguousarray(result).ctypes.data, result.nbytes)
