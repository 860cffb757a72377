"""The exported graphs of a model directory: `vision_encoder.onnx`, in other precisions `vision_encoder_fp8.onnx`."""

from __future__ import annotations

from pathlib import Path

from litevlm_ros.config import PRECISIONS, PipelineConfig
from litevlm_ros.engines.sidecar import TEXT, VISION
from litevlm_ros.errors import EngineError

PLAIN = "fp32"
"""The precision that the file's name does not tell: what runs best on a CPU."""

HEAD_GRAPH = "draft_head.onnx"
"""Of a model that has a draft head."""
SCORER_GRAPH = "token_scorer.onnx"
"""What `token_selection` 'scorer' runs; `train_token_scorer` writes it."""


def graph_name(part: str, precision: str = PLAIN) -> str:
    """'text_decoder.onnx', or 'text_decoder_fp8.onnx' for another precision than PLAIN."""
    return f"{part}.onnx" if precision == PLAIN else f"{part}_{precision}.onnx"


def find_graph(config: PipelineConfig, part: str) -> Path:
    """The graph of `part` (VISION or TEXT) in the precision that `config` names; with 'auto' the most accurate.

    Raises EngineError with the command that makes it.
    """
    directory = config.model_dir
    asked = config.vision_precision if part == VISION else config.text_precision
    for precision in (PLAIN, *PRECISIONS[1:]) if asked == "auto" else (asked,):
        file = directory / graph_name(part, precision)
        if file.is_file():
            return file
    name = graph_name(part, PLAIN if asked == "auto" else asked)
    flag = "" if asked == "auto" else f" --{part.partition('_')[0]}-precision {asked}"
    raise EngineError(f"{name} is missing in {directory}: make it with `{export_command(directory)}{flag}`")


def export_command(directory: Path) -> str:
    """The command that exports the graphs of a model directory."""
    return f"ros2 run litevlm_ros export_onnx --model {directory}"


def obstacle(config: PipelineConfig) -> str | None:
    """Which graphs are missing, with the fix; None if both are there."""
    reasons = []
    for part in (VISION, TEXT):
        try:
            find_graph(config, part)
        except EngineError as error:
            reasons.append(str(error))
    return "; ".join(reasons) or None
