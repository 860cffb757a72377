"""Attention by cuDNN, whose kernels need a tenth of the time of TensorRT's and no memory for the scores.

`nvidia-cudnn-frontend` (module `cudnn`) builds the graphs and loads cuDNN's own library. The operation and its limits:
https://docs.nvidia.com/deeplearning/cudnn/frontend/latest/operations/Attention.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litevlm_ros.engines.text_blocks import qkv_width
from litevlm_ros.errors import EngineError
from litevlm_ros.machine import format_capability
from litevlm_ros.model_config import TextConfig, VisionConfig
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Scratch
from litevlm_ros.runtime.tensorrt.numbers import NUMBER_BYTES

INSTALL = (
    "`pip install nvidia-cudnn-frontend nvidia-cudnn-cu13` installs cuDNN; on a Jetson it comes with JetPack, and only "
    "`pip install nvidia-cudnn-frontend` is needed"
)
"""The sentence that tells how cuDNN is installed."""

_LEAST_CAPABILITY = (8, 0)
"""The first compute capability for which cuDNN documents this attention."""
_TYPES = {"fp16": "HALF", "bf16": "BFLOAT16"}
"""Type in which attention is computed → cuDNN's name for it."""
_INT_BYTES = 4


class CudnnRefusal(EngineError):
    """cuDNN is missing, or does not compute this attention on this GPU."""


@dataclass(frozen=True)
class Layout:
    """The place where cuDNN finds [batch, heads, rows, D]: the sizes, and the distances in numbers."""

    sizes: tuple[int, int, int, int]
    strides: tuple[int, int, int, int]


_ONE = Layout((1, 1, 1, 1), (1, 1, 1, 1))
"""A length: one number."""


class Cudnn:
    """cuDNN on one device: a handle that works on the device's stream, and working memory for all its kernels."""

    def __init__(self, device: CudaDevice, memory: DeviceMemory) -> None:
        """Loads the library. Raises CudnnRefusal with the reason and the fix if it cannot be used on this GPU."""
        if device.compute_capability < _LEAST_CAPABILITY:
            raise CudnnRefusal(
                f"cuDNN computes attention from compute capability {format_capability(_LEAST_CAPABILITY)} on, and "
                f"{device.name} has {format_capability(device.compute_capability)}"
            )
        self._scratch = Scratch(memory, "attention")
        try:
            import cudnn

            # Versions differ in whether a missing library shows at the import or at the first call.
            self.version = str(cudnn.backend_version_string())
            self._handle = cudnn.create_handle()
            cudnn.set_stream(self._handle, int(device.stream.handle))
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            raise CudnnRefusal(f"cuDNN does not load ({_first_line(error)}); {INSTALL}") from error
        self._cudnn: Any = cudnn

    def close(self) -> None:
        """Gives the handle back. No kernel of it may be running."""
        self._cudnn.destroy_handle(self._handle)

    def kernel(
        self,
        inputs: tuple[Layout, Layout, Layout],
        output: Layout,
        computed: str,
        *,
        has_lengths: bool = False,
        causal: bool = False,
    ) -> CudnnKernel:
        """Builds softmax(Q Kᵀ / √D) V for queries, keys and values that lie like `inputs`.

        With `has_lengths` it reads the numbers of queries and of keys when it runs, and the rest is padding. `causal`
        lets the last query see all keys, and each one before it one key less.

        Raises CudnnRefusal if cuDNN has no kernel for that, and EngineError if there is no room for its memory.
        """
        try:
            graph, tensors = self._graph(inputs, output, computed, has_lengths=has_lengths, causal=causal)
            graph.validate()
            graph.build_operation_graph()
            graph.create_execution_plans([self._cudnn.heur_mode.A, self._cudnn.heur_mode.FALLBACK])
            graph.check_support()
            graph.build_plans()
            size = int(graph.get_workspace_size())
        except Exception as error:  # cuDNN's errors have no common base
            raise CudnnRefusal(f"cuDNN {self.version} has no such kernel: {_first_line(error)}") from error
        workspace, _ = self._scratch.at_least(size)
        return CudnnKernel(graph, tensors, workspace, self._handle)

    def _graph(
        self,
        inputs: tuple[Layout, Layout, Layout],
        output: Layout,
        computed: str,
        *,
        has_lengths: bool,
        causal: bool,
    ) -> tuple[Any, dict[str, Any]]:
        """Returns cuDNN's graph, not yet built, and its tensors by name."""
        cudnn = self._cudnn
        number, length, wide = getattr(cudnn.data_type, _TYPES[computed]), cudnn.data_type.INT32, cudnn.data_type.FLOAT
        graph = cudnn.pygraph(
            io_data_type=number, intermediate_data_type=wide, compute_data_type=wide, handle=self._handle
        )

        def tensor(name: str, layout: Layout, kind: Any) -> Any:
            return graph.tensor(name=name, dim=list(layout.sizes), stride=list(layout.strides), data_type=kind)

        tensors = {
            name: tensor(name, layout, number)
            for name, layout in zip(("queries", "keys", "values"), inputs, strict=True)
        }
        options: dict[str, Any] = {}
        if has_lengths:
            tensors |= {name: tensor(name, _ONE, length) for name in ("new", "valid")}
            options = {"use_padding_mask": True, "seq_len_q": tensors["new"], "seq_len_kv": tensors["valid"]}
        if causal:
            options["use_causal_mask_bottom_right"] = True
        result, _ = graph.sdpa(
            name="attention",
            q=tensors["queries"],
            k=tensors["keys"],
            v=tensors["values"],
            generate_stats=False,
            attn_scale=inputs[0].sizes[3] ** -0.5,
            **options,
        )
        result.set_output(True).set_dim(list(output.sizes)).set_stride(list(output.strides)).set_data_type(number)
        return graph, {**tensors, "output": result}


class CudnnKernel:
    """One attention that cuDNN has compiled."""

    def __init__(self, graph: Any, tensors: Mapping[str, Any], workspace: int, handle: Any) -> None:
        self._graph, self._tensors, self._workspace, self._handle = graph, tensors, workspace, handle

    def enqueue(self, addresses: Mapping[str, int]) -> None:
        """Enqueues it with the tensors at these addresses, by name. Raises CudnnRefusal if cuDNN does not run it."""
        pack = {self._tensors[name]: address for name, address in addresses.items()}
        try:
            self._graph.execute(pack, self._workspace, handle=self._handle)
        except Exception as error:  # cuDNN's errors have no common base
            raise CudnnRefusal(f"cuDNN did not run attention: {_first_line(error)}") from error


class CudnnVisionAttention:
    """Attention within each tile, read from the packed QKV as it is."""

    def __init__(self, cudnn: Cudnn, config: VisionConfig, computed: str, tiles: int) -> None:
        """Builds it. Raises CudnnRefusal, and EngineError if there is no room."""
        rows, width, heads = 1 + config.grid**2, config.hidden_size, config.num_heads
        size = width // heads
        self._width_bytes = NUMBER_BYTES * width
        sizes = (tiles, heads, rows, size)
        packed, alone = (Layout(sizes, (rows * pitch, size, pitch, 1)) for pitch in (3 * width, width))
        self._kernel = cudnn.kernel((packed, packed, packed), alone, computed)

    def enqueue(self, qkv: int, output: int) -> None:
        """Enqueues it from [R, 3 * hidden size] at `qkv` to [R, hidden size] at `output`. Raises CudnnRefusal."""
        keys, values = qkv + self._width_bytes, qkv + 2 * self._width_bytes
        self._kernel.enqueue({"queries": qkv, "keys": keys, "values": values, "output": output})


class CudnnTextAttention:
    """Attention of up to `rows` new tokens to the whole cache, of whose rows the lengths in device memory count."""

    def __init__(self, cudnn: Cudnn, config: TextConfig, computed: str, rows: int, capacity: int) -> None:
        """Builds it. Raises CudnnRefusal, and EngineError if there is no room."""
        heads, groups, size = config.num_heads, config.num_kv_heads, config.head_dim
        queries, output = (
            Layout((1, heads, rows, size), (rows * pitch, size, pitch, 1))
            for pitch in (qkv_width(config), heads * size)
        )
        cached = Layout((1, groups, capacity, size), (capacity * groups * size, size, groups * size, 1))
        # A single token sees the whole cache. cuDNN documents wrong results for it with a causal mask.
        self._kernel = cudnn.kernel((queries, cached, cached), output, computed, has_lengths=True, causal=rows > 1)

    def enqueue(self, qkv: int, keys: int, values: int, lengths: int, output: int) -> None:
        """Enqueues it; see TextAttention. Raises CudnnRefusal."""
        both = {"new": lengths, "valid": lengths + _INT_BYTES}
        self._kernel.enqueue({"queries": qkv, "keys": keys, "values": values, "output": output, **both})


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
