"""Damaged, truncated and foreign files of a model: an error that names the file, never a crash, hang or traceback."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from model_fuzzer import CONFIGS, GRAPHS, damaged_bytes, odd_values
from package_files import ROOT

from litevlm_ros.checkpoint.files import SafetensorsDirectory, read_numbers
from litevlm_ros.engines.fingerprint import Machine
from litevlm_ros.engines.sidecar import EngineSidecar
from litevlm_ros.errors import CheckpointError, EngineError, LiteVLMError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import demo_model_directory, sidecar_file


@pytest.mark.slow
def test_damaged_configurations_tokenizers_and_graphs(tmp_path: Path) -> None:
    paths = [str(ROOT), str(ROOT / "test" / "support"), os.environ.get("PYTHONPATH", "")]
    fuzzer = subprocess.run(
        [sys.executable, str(ROOT / "test" / "support" / "model_fuzzer.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True,
    )  # fmt: skip
    assert fuzzer.returncode == 0, fuzzer.stderr
    cases = [json.loads(line) for line in fuzzer.stdout.splitlines()]
    assert {case["file"] for case in cases} == {*CONFIGS, *GRAPHS}
    for case in cases:
        outcome = case["outcome"]
        assert outcome == "loaded" or outcome.startswith("refused: "), case
        assert case["seconds"] < 10, case
    for case in cases:
        if case["damage"] in ("empty", "zeros", "another file", "brackets"):
            assert case["outcome"].startswith("refused: "), case
            # The file is named, or the directory of a tokenizer.
            assert str(tmp_path / "model" / Path(case["file"]).parent) in case["outcome"], case


def test_damaged_weights(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    data = (demo_model_directory() / "text_decoder" / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    # The numbers have no redundancy: only what describes them can be found out.
    for damage, changed in damaged_bytes(data[:header], 60, random.Random(1)):
        weights.write_bytes(changed + data[header:])
        _refuses_or_reads(lambda: _read_all(SafetensorsDirectory(tmp_path)), damage)
    for length in (*range(0, 9), header - 1, header, header + 1, len(data) - 1):
        weights.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            _read_all(SafetensorsDirectory(tmp_path))


SIDECAR = EngineSidecar(
    file="text_decoder_fp16.engine", part="text_decoder", flavour="tensorrt", version="10.3.0",
    compute_capabilities=("8.7",), target="8.7", engine_sha256="0" * 64, engine_bytes=6, weights_sha256="1" * 64,
    graph_sha256="2" * 64, precision_asked="fp16", precision_built="fp16", precision_reason="", calibration="",
    plans=("layer-1", "exit-1"), compiled=True, max_prompt=9, max_context=99, max_tiles=0,
    build_seconds=1.0, built_at="2025-01-01T00:00:00+00:00",
)  # fmt: skip


def test_damaged_sidecars(tmp_path: Path) -> None:
    engine = tmp_path / SIDECAR.file
    engine.write_bytes(b"engine")
    data = SIDECAR.write(tmp_path).read_bytes()
    rng = random.Random(2)
    cases = [*damaged_bytes(data, 100, rng), *(case for _ in range(20) for case in odd_values(data, 99, rng))]
    for damage, changed in cases:
        sidecar_file(engine).write_bytes(changed)
        _refuses_or_reads(lambda: _check(engine), damage)
    sidecar_file(engine).unlink()
    with pytest.raises(EngineError, match=r"text_decoder_fp16\.engine\.json is missing"):
        EngineSidecar.read(engine)


def _check(engine: Path) -> None:
    """Reads a sidecar and uses everything in it."""
    sidecar = EngineSidecar.read(engine)
    sidecar.check(Machine("tensorrt", "10.3.0", "8.7"), engine.parent)
    sidecar.check_file(engine)
    sidecar.check_weights(engine.parent)
    sidecar.check_graph(ModelConfig.from_directory(demo_model_directory()), engine.parent)


def _read_all(weights: SafetensorsDirectory) -> None:
    for stored in weights.tensors.values():
        read_numbers(stored)


def _refuses_or_reads(read: Callable[[], None], damage: str) -> None:
    try:
        read()
    except LiteVLMError as error:
        if not str(error).strip():
            pytest.fail(f"no words for {damage}")
    except Exception as error:
        raise AssertionError(damage) from error
