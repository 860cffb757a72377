"""The precisions of weights, and the choice of another one where a GPU does not have the one that was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from litevlm_ros.errors import ConfigError
from litevlm_ros.machine import format_capability

PRECISIONS = ("fp16", "bf16", "fp8", "int8", "int4")
"""The precisions in which engines are built, in the order in which 'auto' prefers them: the most accurate first, the
smallest last. bf16 rounds more coarsely than fp16, but holds values past 65504. fp8 (E4M3), int8 and int4 say how
weights are stored; engines compute with them in fp16, on every GPU."""

PACKED_PRECISIONS = PRECISIONS[2:]
"""The precisions whose weights are packed: fewer bytes in the engine's file and in the GPU's memory. fp8 and int8 have
a scale for each output of a matrix, int4 one for each block of 128 or 64 inputs, the same size in all of a part."""

UNPACKED_MATRICES = ("patch_embedding.weight",)
"""The matrices that stay fp16 in packed precisions, by the names of parameters."""

WORD_TABLES = ("embed_tokens.weight", "lm_head.weight")
"""The tables with a row for each word: the embedding and the head, which are one in small models."""
WORD_PRECISION = "int8"
"""The precision of word tables in all packed precisions. With one scale for each row, int8 is more exact than fp8."""

GRAPH_PRECISIONS = ("fp16", *PACKED_PRECISIONS)
"""The precisions in which graphs are exported besides fp32. ONNX Runtime does not compute in bf16 on a CPU. Graphs of
packed precisions hold the weights of engines."""

CPU_PRECISIONS = ("int8", "int4")
"""The precisions whose graphs multiply in 8 bits, the more accurate first. A CPU has no arithmetic for fp8."""

PRECISION_CHOICES = ("auto", "fp32", *PRECISIONS)
"""The choices when a model is loaded. 'auto' takes the most accurate engine that is there and fits, or the graph that
suits the CPU best. There are graphs in fp32, but no engines."""

_BF16_CAPABILITY = (8, 0)
"""The first compute capability with bf16 matrix products (NVIDIA's CUDA guide)."""


@dataclass(frozen=True)
class Precision:
    """The precision that was asked for and the one that is built; `reason` says why they differ, '' if they do not."""

    asked: str
    built: str
    reason: str = ""


def stored_in(name: str, precision: str) -> str:
    """Returns the precision in which an engine of a packed `precision` stores the matrix `name`, a parameter's name."""
    if name in UNPACKED_MATRICES:
        return "fp16"
    return WORD_PRECISION if name in WORD_TABLES else precision


def exact_precision(precision: str) -> str:
    """Returns 'int8_exact', the name of graphs that compute in fp32 with the numbers of an engine in int8."""
    return f"{precision}_exact"


def computed_in(precision: str) -> str:
    """Returns the type in which an engine of `precision` multiplies: 'fp16' or 'bf16'."""
    return "bf16" if precision == "bf16" else "fp16"


def describe_packing(precision: str) -> str:
    """Returns 'FP8 storage, FP16 arithmetic', or the like, for a packed precision, and '' for the others."""
    if precision not in PACKED_PRECISIONS:
        return ""
    return f"{precision.upper()} storage, {computed_in(precision).upper()} arithmetic"


def choose_precision(part: str, asked: str, capability: tuple[int, int] | None, *, strict: bool = False) -> Precision:
    """Chooses the precision in which to build `part` (VISION or TEXT) for a GPU of compute capability `capability`.

    None stands for a GPU that has everything. Only BF16 is not on all of them.

    Raises ConfigError if `asked` is unknown, or if the GPU does not have it and `strict` allows nothing else.
    """
    if asked not in PRECISIONS:
        raise ConfigError(f"precision is {asked!r}; allowed: {', '.join(PRECISIONS)}. Use fp16 for the most accurate")
    if asked != "bf16" or capability is None or capability >= _BF16_CAPABILITY:
        return Precision(asked, asked)
    reason = (
        f"a GPU of compute capability {format_capability(capability)} has no BF16, which needs "
        f"{format_capability(_BF16_CAPABILITY)} or newer"
    )
    if strict:
        raise ConfigError(
            f"the {part.replace('_', ' ')} cannot be built in bf16: {reason}; leave out --strict or say "
            f"{precision_flag(part)} fp16"
        )
    return Precision(asked, "fp16", reason)


def precision_flag(part: str) -> str:
    """Returns the tools' option for the precision of `part`: '--vision-precision' or '--text-precision'."""
    return f"--{part.partition('_')[0]}-precision"


def parse_precision_pair(option: str, text: str) -> tuple[str, str]:
    """Reads 'fp16/int4', precisions of vision encoder and text decoder. Raises ConfigError that names `option`."""
    vision, _, language = text.partition("/")
    for precision in (vision, language):
        if precision not in PRECISION_CHOICES:
            raise ConfigError(
                f"{option} has {text!r}; allowed: VISION/TEXT, each one of {', '.join(PRECISION_CHOICES)}"
            )
    return vision, language
