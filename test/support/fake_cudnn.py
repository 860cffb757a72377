"""A module `cudnn`, as nvidia-cudnn-frontend is called, whose attention and products are numpy's on the fake GPU.

It knows only what this package calls, and refuses what the real one would. As there, graphs run on the stream of their
handle, lengths are read when a graph runs, padding rows of the output are not written, and a causal mask over a single
query gives wrong numbers instead of an error.
"""

from __future__ import annotations

import ctypes
import enum
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda

from litevlm_ros.runtime.tensorrt.attention_reference import attend
from litevlm_ros.runtime.tensorrt.numbers import from_words, to_words

NAN = 0x7FFF
"""Not a number, in fp16 and in bf16."""


class DataType(enum.Enum):
    HALF = "fp16"
    BFLOAT16 = "bf16"
    FLOAT = "fp32"
    INT32 = "int32"


_NUMPY = {DataType.INT32: np.int32, DataType.FLOAT: np.float32}


class HeurMode(enum.Enum):
    A = 0
    FALLBACK = 1


class NotSupported(Exception):
    """cudnn.cudnnGraphNotSupportedError, which is no RuntimeError."""


class Tensor:
    def __init__(self, name: str, dim: list[int], stride: list[int], data_type: DataType) -> None:
        self.name, self.dim, self.stride, self.data_type = name, dim, stride, data_type

    def set_output(self, value: bool) -> Tensor:
        assert value
        return self

    def set_dim(self, dim: list[int]) -> Tensor:
        self.dim = dim
        return self

    def set_stride(self, stride: list[int]) -> Tensor:
        self.stride = stride
        return self

    def set_data_type(self, data_type: DataType) -> Tensor:
        self.data_type = data_type
        return self

    def at(self, cuda: FakeCuda, address: int) -> Any:
        """Its numbers in device memory with its sizes and strides: those of 16 bits as uint16."""
        kind = np.dtype(_NUMPY.get(self.data_type, np.uint16))
        count = 1 + sum((size - 1) * step for size, step in zip(self.dim, self.stride, strict=True))
        cuda.check_range(address, count * kind.itemsize)
        memory = np.frombuffer((ctypes.c_char * (count * kind.itemsize)).from_address(address), kind)
        strides = [step * kind.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(memory, self.dim, strides)


@dataclass(eq=False)
class Handle:
    stream: int = 0


@dataclass
class Options:
    """The options that a call of sdpa asks for besides q, k and v."""

    scale: float
    lengths: tuple[Tensor, Tensor] | None
    causal: bool


class Graph:
    """A graph of one operation, `sdpa` or `matmul`, which says what is checked and what is run."""

    def __init__(self, cudnn: FakeCudnn, kind: DataType, handle: Handle) -> None:
        self._cudnn, self._kind, self._handle = cudnn, kind, handle
        self._done: list[str] = []
        self._validate: Callable[[], None]
        self._run: Callable[[dict[Tensor, int]], None]
        self._rows = 0
        """The rows of queries, or of a product, by which a test may have a graph refused."""

    def tensor(self, *, name: str, dim: list[int], stride: list[int], data_type: DataType) -> Tensor:
        return Tensor(name, dim, stride, data_type)

    def sdpa(
        self,
        *,
        name: str,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        generate_stats: bool,
        attn_scale: float,
        use_padding_mask: bool = False,
        seq_len_q: Tensor | None = None,
        seq_len_kv: Tensor | None = None,
        use_causal_mask_bottom_right: bool = False,
    ) -> tuple[Tensor, None]:
        assert not generate_stats
        assert use_padding_mask == (seq_len_q is not None) == (seq_len_kv is not None)
        lengths = (seq_len_q, seq_len_kv) if seq_len_q is not None and seq_len_kv is not None else None
        self._q, self._k, self._v = q, k, v
        self._options = Options(attn_scale, lengths, use_causal_mask_bottom_right)
        self._o = Tensor("o", [], [], self._kind)
        self._rows, self._validate, self._run = q.dim[2], self._validate_attention, self._attend
        return self._o, None

    def matmul(self, *, A: Tensor, B: Tensor, name: str) -> Tensor:
        self._a, self._b, self._c = A, B, Tensor(name, [], [], self._kind)
        self._rows, self._validate, self._run = A.dim[1], self._validate_product, self._multiply
        return self._c

    def validate(self) -> None:
        self._validate()
        self._done.append("validate")

    def _validate_attention(self) -> None:
        for tensor in (self._q, self._k, self._v, self._o):
            assert tensor.data_type is self._kind
            assert tensor.stride[3] == 1, "cuDNN wants the numbers of a head side by side"
        assert self._q.dim[1] % self._k.dim[1] == 0

    def _validate_product(self) -> None:
        assert self._a.data_type is self._b.data_type is self._kind
        assert self._c.data_type in (self._kind, DataType.FLOAT)
        assert self._a.dim[0] == self._b.dim[0] == self._c.dim[0] == 1
        assert self._a.dim[2] == self._b.dim[1]
        assert [self._a.dim[1], self._b.dim[2]] == self._c.dim[1:]
        assert self._a.dim[2] % 8 == 0, "cuDNN reads 16 bytes at once"
        assert self._b.dim[2] % 8 == 0, "cuDNN writes 16 bytes at once"

    def build_operation_graph(self) -> None:
        self._done.append("operations")

    def create_execution_plans(self, modes: list[HeurMode]) -> None:
        assert modes == [HeurMode.A, HeurMode.FALLBACK]
        self._done.append("plans")

    def check_support(self) -> None:
        reason = self._cudnn.refuses.get(self._rows, self._cudnn.refuses.get(0))
        if reason:
            raise NotSupported(f"{reason}\nand so on")
        self._done.append("support")

    def build_plans(self) -> None:
        assert self._done == ["validate", "operations", "plans", "support"]
        self._cudnn.built += 1
        self._done.append("built")

    def get_workspace_size(self) -> int:
        return self._cudnn.workspace

    def execute(self, pack: dict[Tensor, int], workspace: int, *, handle: Handle) -> None:
        cuda = self._cudnn.cuda
        cuda.check_current()
        assert self._done[-1] == "built"
        assert handle in self._cudnn.handles
        if self._cudnn.workspace:
            cuda.check_range(workspace, self._cudnn.workspace)
        if self._cudnn.fails_to_run:
            raise RuntimeError("CUDNN_STATUS_EXECUTION_FAILED")
        cuda.streams[handle.stream].enqueue(lambda: self._run(pack))

    @np.errstate(over="ignore", invalid="ignore")
    def _multiply(self, pack: dict[Tensor, int]) -> None:
        cuda, computed = self._cudnn.cuda, self._kind.value
        a, b = (from_words(each.at(cuda, pack[each]), computed).astype(np.float64)[0] for each in (self._a, self._b))
        result = a @ b
        if self._cudnn.multiplies_wrong:
            result = result[:, ::-1]
        wide = self._c.data_type is DataType.FLOAT
        self._c.at(cuda, pack[self._c])[0] = result.astype(np.float32) if wide else to_words(result, computed)

    @np.errstate(over="ignore", invalid="ignore")
    def _attend(self, pack: dict[Tensor, int]) -> None:
        cuda, computed = self._cudnn.cuda, self._kind.value
        q, k, v = (from_words(each.at(cuda, pack[each]), computed) for each in (self._q, self._k, self._v))
        assert abs(self._options.scale * np.sqrt(q.shape[-1]) - 1) < 1e-12
        out = self._o.at(cuda, pack[self._o])
        new, valid = q.shape[2], k.shape[2]
        if self._options.lengths is not None:
            new, valid = (int(each.at(cuda, pack[each])[0, 0, 0, 0]) for each in self._options.lengths)
        assert 0 < new <= q.shape[2]
        assert new <= valid <= k.shape[2]
        valid += self._cudnn.keys_too_many
        sharing = q.shape[1] // k.shape[1]
        for tile, head in np.ndindex(q.shape[0], q.shape[1]):
            keys, values = k[tile, head // sharing, :valid], v[tile, head // sharing, :valid]
            if not self._options.causal:
                result = attend(q[tile, head, :new], keys, values)
            else:
                seen = valid - new + 1 + np.arange(new) if q.shape[2] > 1 else np.array([1])
                result = attend_causally(q[tile, head, :new], keys, values, seen)
            out[tile, head, :new] = to_words(result, computed)
        if self._cudnn.breaks or not (np.isfinite(k).all() and np.isfinite(v).all()):
            out[:, :, -1] = NAN  # what is masked is multiplied by zero, and must be finite


def attend_causally(queries: Any, keys: Any, values: Any, seen: Any) -> Any:
    """`attend`, of which each query sees as many keys as `seen` says."""
    scores = queries.astype(np.float64) @ keys.astype(np.float64).T / np.sqrt(queries.shape[1])
    scores = np.where(np.arange(len(keys)) < seen[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ values.astype(np.float64)


class FakeCudnn:
    """The behaviour of the module, for tests to change."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.handles: list[Handle] = []
        self.built = 0
        """The number of graphs built."""
        self.workspace = 1000
        self.refuses: dict[int, str] = {}
        """Rows of queries or of a product → why check_support raises; 0 stands for any."""
        self.keys_too_many = 0
        self.breaks = False
        """The last rows are not finite."""
        self.multiplies_wrong = False
        self.fails_to_run = False

    def module(self) -> ModuleType:
        module = ModuleType("cudnn")
        vars(module).update(
            backend_version_string=lambda: "9.19.0",
            create_handle=self._create_handle,
            set_stream=self._set_stream,
            destroy_handle=self._destroy_handle,
            data_type=DataType,
            heur_mode=HeurMode,
            cudnnGraphNotSupportedError=NotSupported,
            pygraph=self._pygraph,
        )
        return module

    def _create_handle(self) -> Handle:
        self.cuda.check_current()
        self.handles.append(Handle())
        return self.handles[-1]

    def _set_stream(self, handle: Handle, stream: int) -> None:
        assert stream in self.cuda.streams
        handle.stream = stream

    def _destroy_handle(self, handle: Handle) -> None:
        self.cuda.check_current()
        self.handles.remove(handle)

    def _pygraph(
        self,
        *,
        io_data_type: DataType,
        intermediate_data_type: DataType,
        compute_data_type: DataType,
        handle: Handle,
    ) -> Graph:
        assert intermediate_data_type is compute_data_type is DataType.FLOAT
        assert handle in self.handles
        return Graph(self, io_data_type, handle)


def install(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> FakeCudnn:
    """Makes a cuDNN on `cuda` this machine's module `cudnn`."""
    cudnn = FakeCudnn(cuda)
    monkeypatch.setitem(sys.modules, "cudnn", cudnn.module())
    return cudnn


def remove(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `import cudnn` fail, as where it is not installed."""
    monkeypatch.setitem(sys.modules, "cudnn", None)
