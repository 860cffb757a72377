"""Tells what the package's own CUDA kernels take of a GPU, as NVRTC's assembler reports it. No GPU is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.tensorrt.kernels.module import NUMBER_MACROS, compile_with_log, read_source
from litevlm_ros.runtime.tensorrt.kernels.pixels import pixel_macros
from litevlm_ros.runtime.tensorrt.kernels.rows import row_macros
from litevlm_ros.runtime.tensorrt.kernels.selection import SELECTION_MACROS
from litevlm_ros.runtime.tensorrt.kernels.text import text_macros
from litevlm_ros.runtime.tensorrt.kernels.weights import WEIGHT_MACROS

_ENTRY = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)'.*?(?P<stack>\d+) bytes stack frame, "
    r"(?P<stored>\d+) bytes spill stores, (?P<loaded>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class KernelResources:
    """A kernel, and what a thread or a block of it takes."""

    source: str
    computed: str
    """'fp16' or 'bf16', the type of its numbers, or 'any' if the source does not depend on it."""
    kernel: str
    registers: int
    stack_bytes: int
    """Bytes of a thread's arrays that are not in registers."""
    spill_bytes: int
    """Bytes that a thread stores because it has too few registers."""
    shared_bytes: int
    """Bytes of shared memory of a block that the source declares."""


def launcher_macros(model: ModelConfig, computed: str) -> Mapping[str, Mapping[str, str]]:
    """Returns the macros with which each source is compiled for `model` in `computed`, 'fp16' or 'bf16'."""
    numbers = NUMBER_MACROS[computed]
    return {
        "finite.cu": numbers,
        "pixels.cu": pixel_macros(model.vision, computed),
        "rows.cu": row_macros(model.text, computed),
        "text.cu": text_macros(model.text, computed),
        "tiling.cu": {},
        "token_selection.cu": SELECTION_MACROS,
        "weights.cu": {**numbers, **WEIGHT_MACROS},
    }


def kernel_resources(model: ModelConfig, compute_capability: tuple[int, int]) -> list[KernelResources]:
    """Compiles every source for one compute capability and returns what its kernels take.

    Sources that do not depend on the type of numbers are compiled once. Raises EngineError as `compile_kernels` does.
    """
    found: list[KernelResources] = []
    in_fp16, in_bf16 = (launcher_macros(model, computed) for computed in ("fp16", "bf16"))
    for source in in_fp16:
        variants = {"fp16": in_fp16[source], "bf16": in_bf16[source]}
        if in_fp16[source] == in_bf16[source]:
            variants = {"any": in_fp16[source]}
        for computed, macros in variants.items():
            found += read_log(source, computed, _assembler_log(source, macros, compute_capability))
    return found


def read_log(source: str, computed: str, log: str) -> list[KernelResources]:
    """Returns what the assembler's verbose log says of each kernel."""
    return [
        KernelResources(
            source,
            computed,
            entry["kernel"],
            registers=int(entry["registers"]),
            stack_bytes=int(entry["stack"]),
            spill_bytes=max(int(entry["stored"]), int(entry["loaded"])),
            shared_bytes=sum(map(int, _SHARED.findall(entry["rest"]))),
        )
        for entry in _ENTRY.finditer(log)
    ]


def resource_table(resources: list[KernelResources]) -> str:
    """Returns a table with one line for each kernel."""
    lines = [f"{'kernel':48} registers  stack bytes  spilled bytes  shared bytes"]
    lines += [
        f"{f'{each.source} {each.kernel} {each.computed}':48} {each.registers:9} {each.stack_bytes:12} "
        f"{each.spill_bytes:14} {each.shared_bytes:13}"
        for each in resources
    ]
    return "\n".join(lines)


def report_resources(directory: Path, compute_capability: tuple[int, int]) -> tuple[str, dict[str, Any]]:
    """Compiles the kernels for the shapes of a model directory. Returns a table and its figures for JSON.

    Raises CheckpointError and EngineError.
    """
    found = kernel_resources(ModelConfig.from_directory(directory), compute_capability)
    figures = {
        "model": str(directory),
        "compute_capability": ".".join(map(str, compute_capability)),
        "cuda_bindings": version("cuda-bindings"),
        "kernels": [asdict(each) for each in found],
    }
    return resource_table(found), figures


def _assembler_log(source: str, macros: Mapping[str, str], compute_capability: tuple[int, int]) -> str:
    _, log = compile_with_log(read_source(source), compute_capability, macros, ("--ptxas-options=-v",))
    return log
