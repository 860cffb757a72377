"""Tells what the package's own CUDA kernels take of a GPU, as NVRTC's assembler reports it. No GPU is needed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from litevlm_ros.lab.benchmarking.boards import BOARDS
from litevlm_ros.model_config import ModelConfig, TextConfig
from litevlm_ros.runtime.tensorrt.kernels.bias import bias_macros
from litevlm_ros.runtime.tensorrt.kernels.decode import (
    DECODE_SIZES,
    DECODE_SOURCES,
    WeightFormat,
    decode_macros,
    decode_obstacle,
    units_of_mlp,
)
from litevlm_ros.runtime.tensorrt.kernels.head import head_macros
from litevlm_ros.runtime.tensorrt.kernels.module import NUMBER_MACROS, compile_with_log, read_source
from litevlm_ros.runtime.tensorrt.kernels.pixels import pixel_macros
from litevlm_ros.runtime.tensorrt.kernels.rows import row_macros
from litevlm_ros.runtime.tensorrt.kernels.selection import SELECTION_MACROS
from litevlm_ros.runtime.tensorrt.kernels.teams import divided
from litevlm_ros.runtime.tensorrt.kernels.text import text_macros
from litevlm_ros.runtime.tensorrt.kernels.vision_rows import vision_row_macros
from litevlm_ros.runtime.tensorrt.kernels.weights import WEIGHT_MACROS

_ENTRY = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)'.*?(?P<stack>\d+) bytes stack frame, "
    r"(?P<stored>\d+) bytes spill stores, (?P<loaded>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)
_DECODE_FORMATS = (
    ("fp16", WeightFormat()),
    ("bf16", WeightFormat()),
    ("fp16", WeightFormat("fp8")),
    ("fp16", WeightFormat("int8")),
    ("fp16", WeightFormat("int4", 128)),
    ("fp16", WeightFormat("int4", 64)),
)
"""Types of numbers and formats of weights for which decode.cu is listed."""
_MULTIPROCESSORS = BOARDS["orin_nano"].multiprocessors
"""Blocks of the smallest GPU for which decode.cu is compiled, each of them a team."""
_SHARED_KIB = {(8, 0): 163, (8, 7): 163, (9, 0): 227, (10, 0): 227, (10, 3): 227, (11, 0): 227}
"""Compute capability → KiB of shared memory that a block may have, from the CUDA programming guide; others have 99."""
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
    """Bytes of shared memory of a block that the source declares. A launch may add more, as that of decode.cu does."""
    variant: str = ""
    """The variant of decode.cu, such as 'int8, 16 tokens'; '' for the other sources."""


def launcher_macros(model: ModelConfig, computed: str) -> Mapping[str, Mapping[str, str]]:
    """Returns the macros with which each source is compiled for `model` in `computed`, 'fp16' or 'bf16'.

    decode.cu has variants, which `decode_resources` compiles.
    """
    numbers = NUMBER_MACROS[computed]
    return {
        "bias.cu": bias_macros(computed),
        "finite.cu": numbers,
        "head.cu": head_macros(model.text, computed),
        "pixels.cu": pixel_macros(model.vision, computed),
        "rows.cu": row_macros(model.text, computed),
        "text.cu": text_macros(model.text, computed),
        "tiling.cu": {},
        "token_selection.cu": SELECTION_MACROS,
        "vision_rows.cu": vision_row_macros(model.vision, computed),
        "weights.cu": {**numbers, **WEIGHT_MACROS},
    }


def kernel_resources(model: ModelConfig, compute_capability: tuple[int, int]) -> list[KernelResources]:
    """Compiles every source but decode.cu for one compute capability and returns what its kernels take.

    Sources that do not depend on the type of numbers are compiled once. Raises EngineError as `compile_kernels` does.
    """
    found: list[KernelResources] = []
    in_fp16, in_bf16 = (launcher_macros(model, computed) for computed in ("fp16", "bf16"))
    for source in in_fp16:
        variants = {"fp16": in_fp16[source], "bf16": in_bf16[source]}
        if in_fp16[source] == in_bf16[source]:
            variants = {"any": in_fp16[source]}
        for computed, macros in variants.items():
            found += read_log(source, computed, _assembler_log(read_source(source), macros, compute_capability))
    return found


def decode_resources(
    text: TextConfig,
    compute_capability: tuple[int, int],
    formats: Iterable[tuple[str, WeightFormat]] = _DECODE_FORMATS,
) -> list[KernelResources]:
    """Compiles decode.cu for 1, 8 and 16 tokens in each of `formats`, and returns what each variant takes.

    A format is the type of numbers, 'fp16' or 'bf16', and that of weights. Those that the kernel does not take for
    `text` are left out. Raises EngineError as `compile_kernels` does.
    """
    shared_bytes = _SHARED_KIB.get(compute_capability, 99) << 10
    source = read_source(*DECODE_SOURCES)
    variants = [
        (computed, stored, tokens)
        for computed, stored in formats
        if not decode_obstacle(text, computed, stored, compute_capability)
        for tokens in DECODE_SIZES
    ]

    def compiled(variant: tuple[str, WeightFormat, int]) -> list[KernelResources]:
        computed, stored, tokens = variant
        teams = divided(text.num_heads, units_of_mlp(text, stored), _MULTIPROCESSORS, lambda _: 0)
        macros = decode_macros(text, computed, stored, tokens, teams, shared_bytes)
        name = f"{stored}, {tokens} token{'s' if tokens > 1 else ''}"
        return read_log(DECODE_SOURCES[-1], computed, _assembler_log(source, macros, compute_capability), name)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return [each for found in threads.map(compiled, variants) for each in found]


def read_log(source: str, computed: str, log: str, variant: str = "") -> list[KernelResources]:
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
            variant=variant,
        )
        for entry in _ENTRY.finditer(log)
    ]


def resource_table(resources: list[KernelResources]) -> str:
    """Returns a table with one line for each kernel."""
    names = [f"{each.source} {each.kernel} {each.computed} {each.variant}".rstrip() for each in resources]
    width = max(map(len, names), default=0)
    lines = [f"{'kernel':{width}} registers  stack bytes  spilled bytes  shared bytes"]
    lines += [
        f"{name:{width}} {each.registers:9} {each.stack_bytes:12} {each.spill_bytes:14} {each.shared_bytes:13}"
        for name, each in zip(names, resources, strict=True)
    ]
    return "\n".join(lines)


def report_resources(directory: Path, compute_capability: tuple[int, int]) -> tuple[str, dict[str, Any]]:
    """Compiles the kernels for the shapes of a model directory. Returns a table and its figures for JSON.

    Raises CheckpointError and EngineError.
    """
    model = ModelConfig.from_directory(directory)
    found = kernel_resources(model, compute_capability) + decode_resources(model.text, compute_capability)
    figures = {
        "model": str(directory),
        "compute_capability": ".".join(map(str, compute_capability)),
        "cuda_bindings": version("cuda-bindings"),
        "kernels": [asdict(each) for each in found],
    }
    return resource_table(found), figures


def _assembler_log(source: str, macros: Mapping[str, str], compute_capability: tuple[int, int]) -> str:
    _, log = compile_with_log(source, compute_capability, macros, ("--ptxas-options=-v",))
    return log
