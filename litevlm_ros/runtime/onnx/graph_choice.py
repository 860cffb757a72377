"""The choice of the graph that runs a part of a model: by what was exported, and by what this CPU computes fast.

Graphs in int8 and int4 multiply in 8 bits (`convert/cpu_graph.py`). That is faster than fp32 where one instruction
multiplies and adds four pairs of such numbers, which all of these are: AMX and VNNI of Intel and AMD (since Ice Lake
and Zen 4), the dot product of ARM (since Armv8.4). Older CPUs need three instructions for it, whose 16-bit sums can
overflow, so there fp32 is as fast and more exact.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import EngineError
from litevlm_ros.machine import cpu_features
from litevlm_ros.model_directory import PARTS, PLAIN, VISION, graph_name
from litevlm_ros.precision import CPU_PRECISIONS, PACKED_PRECISIONS, exact_precision, precision_flag
from litevlm_ros.runtime.onnx.session import export_command

_LOGGER = logging.getLogger(__name__)

_EIGHT_BIT_FEATURES = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")
"""Linux's names of the instructions that multiply 8-bit numbers, on x86-64 and then on ARM."""


def find_graph(config: PipelineConfig, part: str) -> Path:
    """Finds the graph of `part` (VISION or TEXT) in the precision that `config` names.

    With 'auto' it is one that multiplies in 8 bits, if there is one and this CPU does that fast, or else the most
    accurate. Raises EngineError with the command that makes it.
    """
    directory, asked = config.model_dir, _asked(config, part)
    for precision in _in_order(asked):
        file = directory / graph_name(part, precision)
        if file.is_file():
            return file
    name = graph_name(part, PLAIN if asked == "auto" else asked)
    flag = "" if asked in ("auto", PLAIN) else f" {precision_flag(part)} {asked}"
    raise EngineError(f"{name} is missing in {directory}: make it with `{export_command(directory)}{flag}`")


def explain_choice(config: PipelineConfig, part: str) -> None:
    """Logs why `find_graph` takes its graph, where that is not plain: if there are graphs in 8 bits.

    Raises EngineError as `find_graph` does.
    """
    chosen, asked, title = find_graph(config, part), _asked(config, part), part.replace("_", " ")
    fast = [graph_name(part, precision) for precision in CPU_PRECISIONS]
    there = [name for name in fast if (config.model_dir / name).is_file()]
    features = _eight_bit_features()
    if chosen.name in fast and not features:
        _LOGGER.warning(
            "The %s runs from %s, but this CPU has no instruction for products in 8 bits: fp32 is as fast here and "
            "more exact. `%s` makes it",
            title, chosen.name, export_command(config.model_dir),
        )  # fmt: skip
    elif chosen.name in fast and asked == "auto":
        _LOGGER.info(
            "The %s runs from %s: this CPU multiplies in 8 bits (%s), which is faster than fp32. Set %s to fp32 for "
            "the more exact graph",
            title, chosen.name, ", ".join(features), _parameter(part),
        )  # fmt: skip
    elif there and asked == "auto":
        _LOGGER.info(
            "The %s runs from %s and not from %s: this CPU has no instruction for products in 8 bits",
            title, chosen.name, there[0],
        )  # fmt: skip


def obstacle(config: PipelineConfig) -> str | None:
    """Says which graphs are missing, with the fix; returns None if both are there."""
    reasons = []
    for part in PARTS:
        try:
            find_graph(config, part)
        except EngineError as error:
            reasons.append(str(error))
    return "; ".join(reasons) or None


def _asked(config: PipelineConfig, part: str) -> str:
    return config.vision_precision if part == VISION else config.text_precision


def _parameter(part: str) -> str:
    return "vision_precision" if part == VISION else "text_precision"


def _in_order(asked: str) -> Iterator[str]:
    """Yields the names of precisions that serve the one that was asked for, the best first."""
    if asked != "auto":
        yield asked
        yield exact_precision(asked)
        return
    if _eight_bit_features():
        yield from CPU_PRECISIONS
    yield from (PLAIN, "fp16", *map(exact_precision, PACKED_PRECISIONS), *CPU_PRECISIONS)


def _eight_bit_features() -> list[str]:
    there = cpu_features()
    return [feature for feature in _EIGHT_BIT_FEATURES if feature in there]
