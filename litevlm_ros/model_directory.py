"""The names of the files in a model directory, and where the files are that ship beside the Python package.

vision_encoder/ text_decoder/    weights (safetensors), configurations, tokenizer
draft_head/                      weights of a draft head, if the model has one
vision_encoder.onnx, ...         graphs for ONNX Runtime, one for each precision that was exported
vision_encoder_fp16.engine, ...  TensorRT engines (block plans), each with its sidecar `NAME.engine.json`
draft_head.onnx, token_scorer.onnx, view_selector.onnx    what was trained beside the model
checksums.json                   size and SHA-256 of the files above but engines, whose sidecars have them
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from litevlm_ros.errors import ConfigError

VISION = "vision_encoder"
TEXT = "text_decoder"
PARTS = (VISION, TEXT)
"""The two halves of a model. Each is the name of a directory, and the beginning of the names of graphs and engines."""

HEAD_DIRECTORY = "draft_head"
HEAD_GRAPH = "draft_head.onnx"
SCORER_GRAPH = "token_scorer.onnx"
VIEW_SELECTOR_GRAPH = "view_selector.onnx"

WEIGHTS = "model.safetensors"
"""The weights of one part in one file. Large ones may be several files instead, which WEIGHTS_INDEX lists."""
WEIGHTS_INDEX = "model.safetensors.index.json"

TEXT_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja", "generation_config.json",
)  # fmt: skip
"""The files of a checkpoint that go to TEXT beside weights and config.json, as far as there are any."""
VISION_FILES = ("preprocessor_config.json", "processor_config.json")
"""Those that go to VISION."""

ORIGIN_FILE = "origin.json"
"""The file of a part that says which checkpoint it came from."""

CHECKSUMS = "checksums.json"
"""The file beside the parts that `checksums.py` describes."""

PLAIN = "fp32"
"""The precision that a graph's name leaves out. It is the one that runs best on a CPU."""

_SHARE = Path("share") / "litevlm_ros"
_DEMO_MODEL = Path("models") / "demo"


def weight_files(directory: Path) -> list[Path]:
    """Lists the safetensors files of a part's directory, in order of name."""
    return sorted(directory.glob("*.safetensors"))


def weight_bytes(directory: Path) -> int:
    """Returns the size in bytes of the safetensors files of a part's directory."""
    return sum(file.stat().st_size for file in weight_files(directory))


def graph_name(part: str, precision: str = PLAIN) -> str:
    """Returns 'text_decoder.onnx', or 'text_decoder_fp8.onnx' for another precision than PLAIN."""
    return f"{part}.onnx" if precision == PLAIN else f"{part}_{precision}.onnx"


def engine_name(part: str, precision: str) -> str:
    """Returns 'text_decoder_fp8.engine'."""
    return f"{part}_{precision}.engine"


def sidecar_file(engine: Path) -> Path:
    """Returns `NAME.engine.json` for `NAME.engine`."""
    return engine.with_name(f"{engine.name}.json")


def runtime_cache_directory(engine: Path) -> Path:
    """Returns `NAME.runtime_cache/` for `NAME.engine`, where plans for unforeseen shapes and kernels are kept."""
    return engine.with_suffix(".runtime_cache")


def shipped(path: Path) -> Path:
    """Finds `path`, such as models/demo, that ships with this package.

    It is looked for in this checkout, then in the sourced ROS workspaces (the last sourced first), then in pip's
    prefix. Raises ConfigError if it is in none of them.
    """
    workspaces = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    roots = [Path(__file__).parent.parent, *(prefix / _SHARE for prefix in (*workspaces, Path(sys.prefix)))]
    for root in roots:
        if (root / path).exists():
            return root / path
    tried = ", ".join(str(root / path) for root in roots)
    raise ConfigError(f"{path} of this package is not installed (looked in {tried})")


def demo_model_directory() -> Path:
    """Finds the demo model, for the node and for all tools. Raises ConfigError if it is not installed."""
    try:
        return shipped(_DEMO_MODEL)
    except ConfigError as error:
        raise ConfigError(f"the demo model is not installed: {error}. Give a model directory") from None
