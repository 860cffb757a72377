"""A model in a precision that its directory has no graphs of: ONNX Runtime computes with the rounded values."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import EngineError
from litevlm_ros.model_directory import PLAIN, TEXT, VISION, graph_name
from litevlm_ros.pipeline import Pipeline


def load_quantized(config: PipelineConfig) -> Pipeline:
    """`Pipeline.from_config`, for which the graphs that engines are built from are drawn where they are missing.

    Not with the backend 'tensorrt', and not without precisions. Raises LiteVLMError.
    """
    precisions = {VISION: config.vision_precision, TEXT: config.text_precision}
    try:
        return Pipeline.from_config(config)
    except EngineError:
        if config.backend == "tensorrt" or set(precisions.values()) == {"auto"}:
            raise
    try:
        from litevlm_ros.convert.export import export_graphs
    except ImportError as error:
        raise EngineError(
            f"the graphs in {' and '.join(precisions.values())} are missing in {config.model_dir}, and to draw them "
            f"needs PyTorch ({error}): `pip install 'litevlm_ros[convert]'`"
        ) from None
    with tempfile.TemporaryDirectory(prefix="litevlm_quantized_") as name:
        directory = Path(name)
        named = {part: PLAIN if precision == "auto" else precision for part, precision in precisions.items()}
        for _ in export_graphs(config.model_dir, directory, named, check=False):
            pass
        # View selector and whatever else the model has beside its two halves.
        for file in config.model_dir.glob("*.onnx"):
            if file.name not in (graph_name(VISION), graph_name(TEXT)):
                shutil.copy(file, directory)
        return Pipeline.from_config(replace(config, model_dir=directory, backend="onnxruntime"))
