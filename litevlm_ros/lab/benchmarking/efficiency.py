"""The shares of a data sheet's rates that real runs reach, each with its source.

They are other people's published figures, or those of this package's own paths on another GPU, as a file of `benchmark
--compare-transformers --json` has them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.benchmarking import path_costs
from litevlm_ros.lab.benchmarking.boards import MEASURED_GPUS, Rates
from litevlm_ros.lab.benchmarking.exact_stages import STAGES, Stage
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.precision import parse_precision_pair

KINDS = ("vision", "prefill", "decode")
"""The kinds of stages, as in `exact_stages.Stage`."""

_ENGINES = "engines "
"""The beginning of the name of a way that is this package's, in a comparison."""


@dataclass(frozen=True)
class Share:
    """The shares that a stage reaches of a GPU's memory bandwidth and of its fp16 arithmetic, from 0 to 1."""

    memory: float
    arithmetic: float

    def of(self, rates: Rates) -> Rates:
        """Returns the rates that are reached."""
        return Rates(rates.bandwidth * self.memory, rates.flops * self.arithmetic)


@dataclass(frozen=True)
class Efficiency:
    """The shares of each of KINDS, and the bytes that CUDA, TensorRT and cuDNN take for themselves.

    `source` and `library_source` say in sentences where both come from.
    """

    shares: Mapping[str, Share]
    source: str
    library_bytes: float
    library_source: str


PUBLISHED = Efficiency(
    shares=dict.fromkeys(KINDS, Share(memory=0.68, arithmetic=0.34)),
    source="memory at 68 % of its rate, which vLLM reaches on an AGX Orin (Qwen3-0.6B in BF16, 117 tokens/s), and "
    "arithmetic at 34 %, which NVIDIA's NanoOWL reaches there (ViT-B/16 at 768 px, 25 images/s)",
    library_bytes=951e6,
    library_source="as on an H100 with TensorRT-RTX 1.4 (docs/benchmarks.md)",
)
"""Figures that others have published for an AGX Orin, whose developer kit has 204.8 GB/s and 42.6 TFLOP/s in fp16.

Decoding 117 tokens/s reads 117 times the 1.19 GB of Qwen3-0.6B's weights in a second: 68 % of the bandwidth. An image
of OWL-ViT takes 0.59 TFLOP (12 layers of width 768, 2305 rows), so 25 a second are 34 % of the arithmetic. The bytes of
the libraries are the rows 'plans and libraries', 'cuDNN' and 'CUDA's context and modules' of docs/benchmarks.md."""


def read_efficiency(file: Path, model: ModelConfig) -> Efficiency:
    """Returns the shares that this package's engines have reached in a comparison, which `file` holds as JSON.

    `model` has the shapes of the one that was measured. The largest stage of each kind counts, as launches weigh least
    there. A share is that of the data sheet's rates, and one number for memory and arithmetic. Raises ConfigError.
    """
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        gpu = str(report["machine"]["gpu"])
        way = next(way for way in report["ways"] if way["name"].startswith(_ENGINES))
        measured = {stage: float(way["stages"][stage.title]["ms"]) for stage in STAGES if stage.title in way["stages"]}
        libraries = way["memory"] - sum(way["engines"]["memory"].values())
        libraries += sum(way["engines"]["memory"].get(name, 0) for name in ("plans and libraries", "cuDNN"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise ConfigError(
            f"--measured {file} is not what `benchmark --compare-transformers --json {file}` writes ({error!r})"
        ) from error
    if gpu not in MEASURED_GPUS:
        raise ConfigError(
            f"--measured {file} was measured on {gpu!r}, whose data sheet is not known here; known: "
            f"{', '.join(MEASURED_GPUS)}. Leave out --measured"
        )
    precisions = parse_precision_pair("--measured", way["name"].removeprefix(_ENGINES))
    shares = {}
    for stage, ms in measured.items():  # in the order of their sizes
        share = _floor(stage, model, precisions, MEASURED_GPUS[gpu]) / ms
        shares[stage.kind] = Share(share, share)
    if set(shares) != set(KINDS):
        raise ConfigError(f"--measured {file} lacks a stage; measured: {', '.join(stage.title for stage in measured)}")
    reached = ", ".join(f"{kind} {100 * shares[kind].memory:.0f} %" for kind in KINDS)
    return Efficiency(
        shares,
        f"the share of the data sheet's rates that {way['name']} reach on one {gpu}: {reached}. Starting kernels is a "
        "larger part of a decode step there than on a board, so decoding looks rather slower than it is",
        libraries,
        f"as on one {gpu}",
    )


def _floor(stage: Stage, model: ModelConfig, precisions: tuple[str, str], rates: Rates) -> float:
    vision, text = precisions
    path: Any = {
        "vision": lambda: path_costs.vision_path(model, stage.size, vision),
        "prefill": lambda: path_costs.prefill_path(model, stage.size, 0, text),
        "decode": lambda: path_costs.step_path(model, 1, stage.size, text),
    }[stage.kind]
    return path_costs.path_ms(path(), rates)
