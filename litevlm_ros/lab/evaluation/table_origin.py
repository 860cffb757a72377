"""The origin of a row: everything that its figures depend on, as JSON. Two measurements of one origin are alike.

It has the machine, the software, the files of the model, the questions and the settings. Files count by their contents
and not by their paths. Of an engine, its sidecar says what it was built from and by what.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import litevlm_ros
from litevlm_ros.checksums import hash_file
from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import EngineError
from litevlm_ros.machine import describe
from litevlm_ros.model_directory import HEAD_GRAPH, PARTS, SCORER_GRAPH, VIEW_SELECTOR_GRAPH
from litevlm_ros.runtime.tensorrt import engine_files

Origin = dict[str, Any]
"""Nested mappings of texts and numbers, as JSON has them."""

RUNTIME_PACKAGES = (
    "numpy", "opencv-python", "opencv-python-headless", "tokenizers", "onnxruntime", "pycuda", "cuda-bindings",
    "nvidia-cudnn-frontend", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13",
)  # fmt: skip
"""Names that pip has for what runs a model. TensorRT is not among them, since sidecars of engines name its version."""

_IDLE = ("bags", "download", "launching", "node", "tools", "lab/charts", "lab/demo", "lab/training")
"""Beginnings of the paths of this package's files that take no part in any measurement."""
_IDLE_WITH_ENGINES = (*_IDLE, "lab/benchmarking", "runtime/onnx")
_IDLE_WITH_GRAPHS = (*_IDLE, "lab/benchmarking", "runtime/tensorrt", "engines")
_IDLE_WITH_REFERENCE = (*_IDLE, "runtime", "engines")
_ONE_BUILD = ("engine_sha256", "engine_bytes", "build_seconds", "built_at")
"""Facts in a sidecar that differ between two builds of the same engine."""
_DIGITS = 16


def pipeline_origin(config: PipelineConfig, questions: Mapping[str, Any]) -> Origin:
    """Returns the origin of a row that a pipeline of `config` makes. Raises OSError."""
    settings = {name: value for name, value in asdict(config).items() if name not in ("model_dir", "engine_dir")}
    has_engines = config.backend != "onnxruntime" and engine_files.obstacle(config) is None
    run = _engines(config) if has_engines else _graphs(config)
    files = {**_description_files(config.model_dir), **run, **_small_graphs(config)}
    idle = _IDLE_WITH_ENGINES if has_engines else _IDLE_WITH_GRAPHS
    return _origin(files, RUNTIME_PACKAGES, idle, questions, settings)


def reference_origin(
    directory: Path, packages: Sequence[str], questions: Mapping[str, Any], settings: Mapping[str, Any]
) -> Origin:
    """Returns the origin of a row that another program makes of the weights of a model directory. Raises OSError."""
    return _origin(_description_files(directory), packages, _IDLE_WITH_REFERENCE, questions, settings)


def digest(values: Any) -> str:
    """Returns a digest of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:_DIGITS]


def differences(then: Origin, now: Origin) -> list[str]:
    """Returns a line for each figure or text that is not the same: 'settings threads: 1 then, 2 now'."""
    before, after = dict(_leaves(json.loads(json.dumps(then)))), dict(_leaves(json.loads(json.dumps(now))))
    return [
        f"{name}: {before.get(name, 'none')} then, {after.get(name, 'none')} now"
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    ]


def _origin(
    files: Mapping[str, str],
    packages: Sequence[str],
    idle: Sequence[str],
    questions: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Origin:
    host = describe()
    software = {"litevlm_ros": _source_digest(tuple(idle)), "python": platform.python_version()}
    return {
        "machine": {name: host[name] for name in ("cpu", "gpu", "cores", "architecture")},
        "software": {**software, **dict(_versions(packages))},
        "model": dict(files),
        "questions": dict(questions),
        "settings": dict(settings),
    }


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name} ")
        else:
            yield f"{above}{name}", value


def _description_files(directory: Path) -> dict[str, str]:
    """Returns the digests of the weights, configurations and tokenizer of a model directory."""
    files = (file for part in PARTS for file in sorted((directory / part).glob("*")) if file.is_file())
    return {f"{file.parent.name}/{file.name}": _file_digest(file) for file in files}


def _engines(config: PipelineConfig) -> dict[str, str]:
    found = {}
    for part in PARTS:
        engine = engine_files.find_engine(config, part)
        facts = {name: fact for name, fact in asdict(engine.sidecar).items() if name not in _ONE_BUILD}
        found[engine.path.name] = digest(facts)
    return found


def _graphs(config: PipelineConfig) -> dict[str, str]:
    """Returns the digests of the graphs that are there. Others are drawn from the weights, or the row cannot run."""
    try:
        from litevlm_ros.runtime.onnx.graph_choice import find_graph
    except ImportError:
        return {}
    found = {}
    for part in PARTS:
        with contextlib.suppress(EngineError):
            file = find_graph(config, part)
            found[file.name] = _file_digest(file)
    return found


def _small_graphs(config: PipelineConfig) -> dict[str, str]:
    used = {
        VIEW_SELECTOR_GRAPH: config.view_selection.method == "learned",
        SCORER_GRAPH: config.token_selection.method == "scorer",
        HEAD_GRAPH: config.speculation.source in ("head", "auto"),
    }
    files = (config.model_dir / name for name, is_used in used.items() if is_used)
    return {file.name: _file_digest(file) for file in files if file.is_file()}


def _file_digest(file: Path) -> str:
    facts = file.stat()
    return _digest_once(file, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _digest_once(file: Path, size: int, changed: int) -> str:
    """Hashes a file again only if its size or its time of change is another one."""
    return hash_file(file)[:_DIGITS]


@functools.cache
def _source_digest(idle: tuple[str, ...]) -> str:
    """Returns a digest of this package's source, without the files whose paths begin with one of `idle`."""
    root = Path(litevlm_ros.__file__).parent
    files = (file for kind in ("py", "cu", "cuh") for file in root.rglob(f"*.{kind}"))
    parts = sorted((file.relative_to(root).as_posix(), file) for file in files)
    return digest([(name, hash_file(file)) for name, file in parts if not name.startswith(idle)])


def _versions(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in packages:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
