"""cuDNN on one device: it compiles graphs of one operation, whose kernels then run on the device's stream.

`nvidia-cudnn-frontend` (module `cudnn`) builds the graphs and loads cuDNN's own library. Its operations and their
limits: https://docs.nvidia.com/deeplearning/cudnn/frontend/latest/operations/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from litevlm_ros.errors import EngineError, first_line
from litevlm_ros.machine import format_capability
from litevlm_ros.packages import pip_command
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Scratch

_LEAST_CAPABILITY = (8, 0)
"""The first compute capability for which cuDNN documents what this package asks for."""
_TYPES = {"fp16": "HALF", "bf16": "BFLOAT16", "fp32": "FLOAT", "int32": "INT32"}
"""Type of numbers → cuDNN's name for it."""


class CudnnRefusal(EngineError):
    """cuDNN is missing, or does not compute something on this GPU."""


def _install() -> str:
    """Returns the sentence that tells how cuDNN is installed."""
    packages = ("nvidia-cudnn-frontend", "nvidia-cudnn-cu13")
    return (
        f"`{pip_command(*packages)}` installs cuDNN; on a Jetson it comes with JetPack, and only "
        f"`{pip_command(packages[0])}` is needed"
    )


@dataclass(frozen=True)
class Layout:
    """The place of a tensor's numbers: its sizes, and the distances along each of them in numbers."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]


class Cudnn:
    """A handle of cuDNN that works on the device's stream, and working memory for all its kernels."""

    def __init__(self, device: CudaDevice, memory: DeviceMemory) -> None:
        """Loads the library. Raises CudnnRefusal with the reason and the fix if it cannot be used on this GPU."""
        if device.compute_capability < _LEAST_CAPABILITY:
            raise CudnnRefusal(
                f"cuDNN's kernels need compute capability {format_capability(_LEAST_CAPABILITY)} or more, and "
                f"{device.name} has {format_capability(device.compute_capability)}"
            )
        self._scratch = Scratch(memory, "cuDNN")
        try:
            import cudnn

            # Versions differ in whether a missing library shows at the import or at the first call.
            self.version = str(cudnn.backend_version_string())
            self._handle = cudnn.create_handle()
            cudnn.set_stream(self._handle, int(device.stream.handle))
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            raise CudnnRefusal(f"cuDNN does not load ({first_line(error)}); {_install()}") from error
        self._cudnn: Any = cudnn

    def close(self) -> None:
        """Gives the handle back. No kernel of it may be running."""
        self._cudnn.destroy_handle(self._handle)

    def kernel(self, what: str, computed: str, define: Callable[[CudnnGraph], None]) -> CudnnKernel:
        """Compiles the graph that `define` fills, which reads and writes numbers of type `computed`, 'fp16' or 'bf16'.

        Raises CudnnRefusal if cuDNN has no kernel for that (`what` is for the message), and EngineError if there is no
        room for its memory.
        """
        cudnn = self._cudnn
        try:
            graph = CudnnGraph(cudnn, computed, self._handle)
            define(graph)
            operations = graph.operations
            operations.validate()
            operations.build_operation_graph()
            operations.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
            operations.check_support()
            operations.build_plans()
            size = int(operations.get_workspace_size())
        except Exception as error:  # cuDNN's errors have no common base
            raise CudnnRefusal(f"cuDNN {self.version} has no kernel for {what}: {first_line(error)}") from error
        workspace, _ = self._scratch.at_least(size)
        return CudnnKernel(what, operations, graph.tensors, workspace, self._handle)


class CudnnGraph:
    """A graph in the making. It computes in fp32 between what it reads and writes."""

    def __init__(self, cudnn: Any, computed: str, handle: Any) -> None:
        self._types = {name: getattr(cudnn.data_type, of_cudnn) for name, of_cudnn in _TYPES.items()}
        wide = self._types["fp32"]
        self.operations: Any = cudnn.pygraph(
            io_data_type=self._types[computed], intermediate_data_type=wide, compute_data_type=wide, handle=handle
        )
        """The frontend's graph, whose methods are the operations."""
        self.tensors: dict[str, Any] = {}
        """Inputs and outputs by name."""

    def input(self, name: str, layout: Layout, kind: str) -> Any:
        """Returns a new input of type `kind`: 'fp16', 'bf16', 'fp32' or 'int32'."""
        self.tensors[name] = self.operations.tensor(
            name=name, dim=list(layout.sizes), stride=list(layout.strides), data_type=self._types[kind]
        )
        return self.tensors[name]

    def output(self, name: str, tensor: Any, layout: Layout, kind: str) -> None:
        """Makes an operation's result an output of type `kind`."""
        tensor.set_output(True).set_dim(list(layout.sizes)).set_stride(list(layout.strides))
        tensor.set_data_type(self._types[kind])
        self.tensors[name] = tensor


class CudnnKernel:
    """A graph that cuDNN has compiled."""

    def __init__(self, what: str, operations: Any, tensors: Mapping[str, Any], workspace: int, handle: Any) -> None:
        self._what, self._operations, self._tensors = what, operations, tensors
        self._workspace, self._handle = workspace, handle

    def enqueue(self, addresses: Mapping[str, int]) -> None:
        """Enqueues it with the tensors at these addresses, by name. Raises CudnnRefusal if cuDNN does not run it."""
        pack = {self._tensors[name]: address for name, address in addresses.items()}
        try:
            self._operations.execute(pack, self._workspace, handle=self._handle)
        except Exception as error:  # cuDNN's errors have no common base
            raise CudnnRefusal(f"cuDNN did not run {self._what}: {first_line(error)}") from error
