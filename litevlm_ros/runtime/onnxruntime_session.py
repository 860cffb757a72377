"""ONNX Runtime sessions whose graphs are what their users expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from litevlm_ros.errors import EngineError
from litevlm_ros.runtime.graph_files import export_command


def open_session(
    file: Path,
    options: Any,
    shapes: Mapping[str, Sequence[int | str]],
    optional: Mapping[str, Sequence[int | str]] | None = None,
    tool: str | None = None,
) -> Any:
    """A session whose inputs and outputs have these names and sizes; texts stand for sizes that vary.

    `optional` ones may be missing. Raises EngineError that names the tool which writes the file; None is export_onnx.
    """
    hint = export_hint(file.parent, tool)
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


def export_hint(directory: Path, tool: str | None = None) -> str:
    """What helps where a graph cannot be used: export it again, or have the tool that writes it make it again."""
    if tool is None:
        return f"export the graphs again with `{export_command(directory)}`"
    return f"make it again with `ros2 run litevlm_ros {tool} --model {directory}`"
