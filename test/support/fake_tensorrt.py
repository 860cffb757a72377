"""A TensorRT, or TensorRT-RTX, whose plans are ONNX graphs, run by ONNX Runtime on the fake GPU's memory."""

from __future__ import annotations

import ctypes
import enum
import functools
import importlib.machinery
import json
import struct
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import fake_cudnn
import numpy as np
import onnx
import onnxruntime
import pytest
from fake_cuda import FakeCuda

from litevlm_ros.checksums import hash_file
from litevlm_ros.engines import fingerprint, target, tensorrt_module
from litevlm_ros.engines.fingerprint import hash_weights
from litevlm_ros.engines.graphs import block_graphs, graph_hash
from litevlm_ros.engines.plan_archive import PlanKey, write_archive
from litevlm_ros.engines.shapes import Sizes, foreseen
from litevlm_ros.engines.sidecar import EngineSidecar
from litevlm_ros.machine import Device
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import PARTS, TEXT, VISION, engine_name
from litevlm_ros.runtime.tensorrt import block_race, engine_files
from litevlm_ros.runtime.tensorrt.numbers import from_words, to_words

VERSION = "10.3.0"
MOST_TILES = 3
MOST_CONTEXT = 700
MOST_PROMPT = 96
"""The new tokens of one call, so that longer prompts are read in parts."""

_MAGIC = b"fake plan"


def install(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda, *, rtx: bool = False) -> None:
    """Makes `cuda` this machine's GPU, and pycuda, cuda.bindings, cuDNN and TensorRT 10.3 its packages.

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
    fake_cudnn.install(monkeypatch, cuda)
    monkeypatch.setattr(block_race, "LEAST_ROWS", 1 << 30)  # the time of a fake GPU says nothing
    device = Device("Fake GPU", (9, 0), cuda.total, integrated=False)
    for user in (fingerprint, engine_files, target):
        monkeypatch.setattr(user, "find_device", lambda index=0: device)
    monkeypatch.setattr(tensorrt_module, "MODULES", (tensorrt.__name__,))
    forget()


def forget() -> None:
    """Lets the TensorRT that was loaded before not outlive its test. To be called after each test with `install`."""
    tensorrt_module.load_tensorrt.cache_clear()
    tensorrt_module.tensorrt_logger.cache_clear()


def write_engines(model: Path, directory: Path, precision: str = "fp16", **changes: Any) -> None:
    """Writes engines and sidecars for the shapes and weights of `model` to `directory`.

    `changes` replace facts of both sidecars.
    """
    config = ModelConfig.from_directory(model)
    directory.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        file = directory / engine_name(part, precision)
        graphs = {block.name: block.serialized() for block in block_graphs(part, precision, config)}
        plans = {
            key: (plan_of(graphs[key.block], key), b"")
            for key in foreseen(part, Sizes(MOST_TILES, MOST_PROMPT), config, precision)
        }
        write_archive(file, part, precision, graphs, plans, _packed(part, model, precision))
        facts: dict[str, Any] = {
            "file": file.name, "part": part, "flavour": "tensorrt", "version": VERSION,
            "compute_capabilities": ("9.0",), "target": "9.0",
            "engine_sha256": hash_file(file), "engine_bytes": file.stat().st_size,
            "weights_sha256": "" if precision in ("fp16", "bf16") else hash_weights(model / part),
            "graph_sha256": graph_hash(part, precision, config), "precision_asked": precision,
            "precision_built": precision, "precision_reason": "", "calibration": "",
            "plans": tuple(map(str, plans)), "compiled": False,
            "max_prompt": MOST_PROMPT if part == TEXT else 0, "max_context": MOST_CONTEXT if part == TEXT else 0,
            "max_tiles": MOST_TILES if part == VISION else 0, "build_seconds": 1.0,
            "built_at": "2025-01-01T00:00:00Z",
        }  # fmt: skip
        EngineSidecar(**{**facts, **changes}).write(directory)


def plan_of(graph: bytes, key: PlanKey) -> bytes:
    """Returns the plan that the fake TensorRT builds of a block."""
    model = onnx.load_from_string(graph)
    sizes = {"R": key.rows, "C": key.columns}
    return _plan(graph, {tensor.name: _shape(tensor, sizes) for tensor in model.graph.input})


def _packed(part: str, model: Path, precision: str) -> dict[str, Any]:
    if precision in ("fp16", "bf16"):
        return {}
    from litevlm_ros.convert.packed_weights import pack

    return dict(pack(part, model, precision, None))


def _plan(graph: bytes, shapes: dict[str, tuple[int, ...]]) -> bytes:
    header = json.dumps(shapes).encode()
    return _MAGIC + struct.pack("<I", len(header)) + header + graph


def _shape(tensor: Any, sizes: dict[str, int]) -> tuple[int, ...]:
    dimensions = tensor.type.tensor_type.shape.dim
    return tuple(sizes.get(each.dim_param, -1) if each.dim_param else each.dim_value for each in dimensions)


class _Strategy(enum.Enum):
    USER_MANAGED = 2


class _Kernels(enum.Enum):
    EAGER = 1


class _Mode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


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

    class Builder:
        def __init__(self, logger: Any) -> None:
            pass

        def create_network(self, flags: int) -> SimpleNamespace:
            return SimpleNamespace(num_inputs=0)

        def create_builder_config(self) -> SimpleNamespace:
            config = SimpleNamespace(profiles=[], set_compute_capability=lambda capability, index: None)
            config.add_optimization_profile = lambda profile: config.profiles.append(profile) or 0
            config.create_timing_cache = lambda contents: SimpleNamespace(serialize=lambda: contents)
            config.set_timing_cache = lambda cache, ignore_mismatch: setattr(config, "cache", cache)
            config.get_timing_cache = lambda: config.cache
            return config

        def create_optimization_profile(self) -> SimpleNamespace:
            shapes: dict[str, tuple[int, ...]] = {}
            return SimpleNamespace(
                shapes=shapes, set_shape=lambda name, least, likely, most: shapes.__setitem__(name, most)
            )

        def build_serialized_network(self, network: Any, config: Any) -> bytes:
            (profile,) = config.profiles
            model = onnx.load_from_string(network.graph)
            every = {tensor.name: _shape(tensor, {}) for tensor in model.graph.input}
            return _plan(network.graph, {**every, **profile.shapes})

    class OnnxParser:
        def __init__(self, network: Any, logger: Any) -> None:
            self._network = network
            self.num_errors = 0

        def parse(self, graph: bytes) -> bool:
            inputs = onnx.load_from_string(graph).graph.input

            def tensor(index: int) -> SimpleNamespace:
                dimensions = inputs[index].type.tensor_type.shape.dim
                return SimpleNamespace(
                    name=inputs[index].name,
                    shape=_shape(inputs[index], {}),
                    get_dimension_name=lambda axis: dimensions[axis].dim_param,
                )

            self._network.graph, self._network.num_inputs, self._network.get_input = graph, len(inputs), tensor
            return True

    vars(module).update(
        __version__=VERSION,
        ILogger=ILogger,
        Runtime=Runtime,
        Builder=Builder,
        OnnxParser=OnnxParser,
        TensorIOMode=_Mode,
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        ComputeCapability=SimpleNamespace(CURRENT=0, __members__={}),
        ExecutionContextAllocationStrategy=_Strategy,
        DynamicShapesKernelSpecializationStrategy=_Kernels,
    )
    return module


_COMPUTED = {onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.BFLOAT16: "bf16"}
_TYPES = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(int64)": np.int64}
_MOVES = ("Reshape", "Slice", "Split", "Transpose")
"""The operators that compute nothing."""


def _in_fp32(graph: bytes) -> tuple[bytes, dict[str, str]]:
    """Returns a graph in fp32 that rounds wherever `graph` computes in fp16 or bf16, as a GPU does.

    Left alone, ONNX Runtime would compute in fp32 without rounding, and nothing would overflow. The inputs and outputs
    that are fp16 or bf16 come with it.
    """
    fp32 = onnx.TensorProto.FLOAT
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph))
    ends = (*model.graph.input, *model.graph.output)
    kinds = {tensor.name: tensor.type.tensor_type.elem_type for tensor in (*ends, *model.graph.value_info)}
    nodes = []
    for node in model.graph.node:
        kind = kinds.get(node.output[0])
        nodes.append(node)
        if kind not in _COMPUTED or node.op_type in _MOVES:
            continue
        for attribute in node.attribute:
            if attribute.name == "to":
                attribute.i = fp32
        (name,) = node.output
        node.output[0] = f"{name}_wide"
        nodes.append(onnx.helper.make_node("Cast", [f"{name}_wide"], [f"{name}_rounded"], to=kind))
        nodes.append(onnx.helper.make_node("Cast", [f"{name}_rounded"], [name], to=fp32))
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    for tensor in ends:
        if tensor.type.tensor_type.elem_type in _COMPUTED:
            tensor.type.tensor_type.elem_type = fp32
    computed = {tensor.name: _COMPUTED[kinds[tensor.name]] for tensor in ends if kinds[tensor.name] in _COMPUTED}
    return model.SerializeToString(), computed


@functools.cache
def _session(graph: bytes) -> tuple[onnxruntime.InferenceSession, dict[str, str]]:
    """Returns what runs a graph, whatever its number of rows, and what `_in_fp32` says of it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    in_fp32, computed = _in_fp32(graph)
    return onnxruntime.InferenceSession(in_fp32, options, providers=["CPUExecutionProvider"]), computed


class _Engine:
    def __init__(self, cuda: FakeCuda, contents: bytes) -> None:
        self.cuda, self._size = cuda, 0
        if not contents.startswith(_MAGIC):
            raise ValueError("this is no plan")
        begin = len(_MAGIC) + 4
        (length,) = struct.unpack("<I", contents[len(_MAGIC) : begin])
        self.shapes = {name: tuple(shape) for name, shape in json.loads(contents[begin : begin + length]).items()}
        self.session, self.computed = _session(contents[begin + length :])
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.outputs = {value.name: value for value in self.session.get_outputs()}
        self.all = self.inputs | self.outputs
        self.num_io_tensors = len(self.all)
        self._size = len(contents)
        cuda.taken += self._size

    def __del__(self) -> None:
        self.cuda.taken -= self._size

    def get_tensor_name(self, index: int) -> str:
        return list(self.all)[index]

    def get_tensor_mode(self, name: str) -> _Mode:
        return _Mode.INPUT if name in self.inputs else _Mode.OUTPUT

    def get_tensor_shape(self, name: str) -> list[int]:
        return [size if isinstance(size, int) else -1 for size in self.all[name].shape]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert profile == 0
        return 3 * [self.shapes[name]]

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
        settings.cache.kernels = settings.cache.kernels or 1
        return super().create_execution_context(settings.strategy)


class _RuntimeCache:
    def __init__(self) -> None:
        self.kernels = 0

    def serialize(self) -> bytes:
        return b"kernels " * self.kernels

    def deserialize(self, contents: bytes) -> bool:
        self.kernels = contents.count(b"kernels ")
        return self.kernels > 0


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._cuda = engine.cuda
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = 0
        self._ran = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = shape
        return tuple(shape) == self._engine.shapes[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in self._engine.all and address % 256 == 0

    def infer_shapes(self) -> list[str]:
        return [name for name in self._engine.inputs if name not in self._shapes]

    def update_device_memory_size_for_shapes(self) -> int:
        return 1000 * next(iter(self._shapes.values()))[0]  # rows of the first activation

    def set_device_memory(self, address: int, size: int) -> None:
        self._cuda.check_range(address, size)
        self._scratch = address if size >= self.update_device_memory_size_for_shapes() else 0
        self._ran = False

    def execute_async_v3(self, handle: int) -> bool:
        stream = self._cuda.streams[handle]
        self._cuda.check_current()
        if not self._scratch or self._addresses.keys() != self._engine.all.keys():
            return False
        if stream.recording is not None and not self._ran:
            return False  # TensorRT allocates at the first run, which a capture does not take
        self._ran = True
        addresses, scratch = dict(self._addresses), self._scratch
        size = self.update_device_memory_size_for_shapes()

        def run() -> None:
            self._cuda.check_range(scratch, size)
            ctypes.memset(scratch, 0xAB, size)
            self._run(addresses)

        stream.enqueue(run)
        return True

    @np.errstate(over="ignore", invalid="ignore")
    def _run(self, addresses: dict[str, int]) -> None:
        feed, computed = {}, self._engine.computed
        for name, value in self._engine.inputs.items():
            dtype = np.dtype(np.uint16 if name in computed else _TYPES[value.type])
            size = int(np.prod(self._shapes[name])) * dtype.itemsize
            self._cuda.check_range(addresses[name], size)
            numbers = np.frombuffer(ctypes.string_at(addresses[name], size), dtype).reshape(self._shapes[name])
            feed[name] = from_words(numbers, computed[name]) if name in computed else numbers
        results = self._engine.session.run(list(self._engine.outputs), feed)
        for name, result in zip(self._engine.outputs, results, strict=True):
            numbers = np.ascontiguousarray(to_words(result, computed[name]) if name in computed else result)
            self._cuda.check_range(addresses[name], numbers.nbytes)
            ctypes.memmove(addresses[name], numbers.ctypes.data, numbers.nbytes)
