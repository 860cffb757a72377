"""The commands that make a damaged file of a model directory again."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

from litevlm_ros.config_json import read_config
from litevlm_ros.errors import CheckpointError, ConfigError
from litevlm_ros.model_directory import (
    HEAD_DIRECTORY,
    HEAD_GRAPH,
    ORIGIN_FILE,
    PARTS,
    PLAIN,
    SCORER_GRAPH,
    TEXT,
    VIEW_SELECTOR_GRAPH,
    VISION,
    demo_model_directory,
)
from litevlm_ros.precision import precision_flag

_RUN = "ros2 run litevlm_ros"
_OTHER = {VISION: "text", TEXT: "vision"}


def accept_command(model: Path) -> str:
    """Returns the command that lists the files of a model directory as they are."""
    return f"{_RUN} check_model --model {quoted(model)} --accept"


def mend_advice(model: Path, name: str) -> str:
    """Tells, as the beginning of a sentence, how to make the file `name` of the model directory `model` again."""
    if _is_demo(model):
        return (
            "It is of the demo model, which ships with this package: install the package again, or run `git checkout "
            f"{quoted(model / name)}` in a checkout"
        )
    command = _command(model, name)
    return f"Make it again with `{command}`" if command else "Copy it again from where it came from"


def quoted(path: Path) -> str:
    """Returns a path as a shell takes it."""
    return shlex.quote(str(path))


def _is_demo(model: Path) -> bool:
    with contextlib.suppress(ConfigError, OSError):
        return demo_model_directory().samefile(model)
    return False


def _command(model: Path, name: str) -> str:
    """Returns the command, or '' if none is known."""
    directory = name.partition("/")[0]
    if directory in PARTS:
        return _download(model, directory)
    if directory == HEAD_DIRECTORY:
        return f"{_RUN} train_draft_head --model {quoted(model)}"
    if name == SCORER_GRAPH:
        return f"{_RUN} train_token_scorer --model {quoted(model)}"
    if name == VIEW_SELECTOR_GRAPH:
        return f"{_RUN} train_view_selector --output {quoted(model / name)}"
    return _export(model, name.removesuffix(".data"))


def _download(model: Path, part: str) -> str:
    """Returns the command for a part whose origin is known."""
    try:
        origin = read_config(model / part / ORIGIN_FILE)
    except CheckpointError:
        return ""
    source, revision = origin.get("model"), origin.get("revision")
    if not isinstance(source, str) or not isinstance(revision, str) or not source:
        return ""
    chosen = f"--model {shlex.quote(source)}" + (f" --revision {shlex.quote(revision)}" if revision else "")
    return f"{_RUN} download_models {chosen} --output {quoted(model)} --skip-{_OTHER[part]} --force"


def _export(model: Path, name: str) -> str:
    if name == HEAD_GRAPH:
        return f"{_RUN} export_onnx --model {quoted(model)} --skip-vision"
    stem = name.removesuffix(".onnx")
    part = next((part for part in PARTS if stem.startswith(part)), "")
    if not part:
        return ""
    precision = stem.removeprefix(part).lstrip("_") or PLAIN
    exact = " --exact" if precision.endswith("_exact") else ""
    chosen = f"{precision_flag(part)} {precision.removesuffix('_exact')}{exact}"
    return f"{_RUN} export_onnx --model {quoted(model)} --skip-{_OTHER[part]} {chosen}"
