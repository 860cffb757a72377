"""ONNX Runtime sessions that run exported graphs on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from litevlm_ros.checksums import unchanged_graph
from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import EngineError
from litevlm_ros.machine import physical_cores

Array = npt.NDArray[Any]

DTYPES: Mapping[str, npt.DTypeLike] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
"""ONNX Runtime's names of the types that activations can have → numpy's types."""


def session_options(config: PipelineConfig) -> Any:
    """Returns an onnxruntime.SessionOptions with the threads that `config` asks for."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.threads or physical_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin between operators would take the cores from ROS callbacks.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(config.spin_threads)))
    # Keep weights out of the arena, which grows in powers of two.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    # Exact graphs restore packed weights once, when they are loaded: the numbers of an engine, at the speed of fp32.
    # By default ONNX Runtime would restore them in every run, or fuse that with the product and round otherwise.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def open_session(
    file: Path,
    options: Any,
    shapes: Mapping[str, Sequence[int | str]],
    optional: Mapping[str, Sequence[int | str]] | None = None,
    tool: str | None = None,
) -> Any:
    """Opens the graph `file`, whose inputs and outputs must have these names and sizes.

    A text stands for a size that varies. Tensors in `optional` may be missing. Raises EngineError, which tells to write
    the file again with `tool`; None stands for export_onnx. Raises CheckpointError if the file, or one that it reads
    weights from, is not what it was when it was made.
    """
    hint = export_hint(file.parent, tool)
    with unchanged_graph(file):
        try:
            session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            raise EngineError(f"{file} cannot be loaded: {error}; {hint}") from error
    found = {value.name: value.shape for value in [*session.get_inputs(), *session.get_outputs()]}
    shapes = {**shapes, **{name: shape for name, shape in (optional or {}).items() if name in found}}
    if found.keys() != shapes.keys():
        difference = ", ".join(sorted(found.keys() ^ shapes.keys()))
        raise EngineError(f"{file} has other inputs or outputs than this version expects ({difference}); "
                          f"{hint}")  # fmt: skip
    for name, shape in shapes.items():
        fits = len(found[name]) == len(shape) and all(
            isinstance(size, str) or isinstance(there, str) or size == there
            for size, there in zip(shape, found[name], strict=True)
        )
        if not fits:
            raise EngineError(f"{file} belongs to another model than the config.json files beside it: {name} is "
                              f"{list(found[name])} instead of {list(shape)}; {hint}")  # fmt: skip
    return session


def bind(session: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Any:
    """Returns a binding for `run_with_iobinding` that reads and writes these contiguous arrays."""
    binding = session.io_binding()
    for arrays, bind_one in ((inputs, binding.bind_input), (outputs, binding.bind_output)):
        for name, array in arrays.items():
            bind_one(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    # ONNX Runtime keeps the addresses only.
    binding.arrays = (inputs, outputs)
    return binding


def export_hint(directory: Path, tool: str | None = None) -> str:
    """Returns the advice to write a graph in `directory` again: with `tool`, or with export_onnx if that is None."""
    if tool is None:
        return f"export the graphs again with `{export_command(directory)}`"
    return f"make it again with `ros2 run litevlm_ros {tool} --model {directory}`"


def export_command(directory: Path) -> str:
    """Returns the command that exports the graphs of a model directory."""
    return f"ros2 run litevlm_ros export_onnx --model {directory}"
