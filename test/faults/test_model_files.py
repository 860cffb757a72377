"""Damaged, truncated and foreign files of a model: an error that names the file, never a crash, hang or traceback."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from model_fuzzer import CONFIGS, GRAPHS, damaged_bytes, odd_values
from package_files import ROOT

from litevlm_ros.checkpoint.files import SafetensorsDirectory, read_numbers
from litevlm_ros.checksums import listed
from litevlm_ros.engines.fingerprint import Machine
from litevlm_ros.engines.sidecar import EngineSidecar
from litevlm_ros.errors import CheckpointError, EngineError, LiteVLMError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import CHECKSUMS, demo_model_directory, sidecar_file


@pytest.mark.slow
def test_damaged_configurations_tokenizers_and_graphs(tmp_path: Path) -> None:
    cases = _fuzzed(tmp_path)
    assert {case["file"] for case in cases} == {*CONFIGS, *GRAPHS}
    for case in cases:
        outcome = case["outcome"]
        assert outcome.startswith(("said: ", "refused: ")), case
        assert case["seconds"] < 10, case
    for case in cases:
        if case["damage"] in ("empty", "zeros", "another file", "brackets"):
            assert case["outcome"].startswith("refused: "), case
            # The file is named, or the directory of a tokenizer.
            assert str(tmp_path / "model" / Path(case["file"]).parent) in case["outcome"], case


@pytest.mark.slow
def test_no_damaged_file_gives_other_words(tmp_path: Path) -> None:
    """The whole model's words, or an error that names the file and what mends it. See `model_fuzzer` for more files."""
    whole, *cases = _fuzzed(tmp_path, "300")
    assert whole["outcome"].startswith("said: ")
    assert {case["file"] for case in cases} == {*listed(demo_model_directory()), CHECKSUMS}
    assert len({case["damage"] for case in cases}) > 10
    for case in cases:
        if case["file"] == CHECKSUMS and case["outcome"] == whole["outcome"]:
            continue  # it has lost a file, which is whole
        assert case["outcome"].startswith("refused: "), case
        assert str(tmp_path / "model" / case["file"]) in case["outcome"] or case["file"] == CHECKSUMS, case
        assert "`ros2 run litevlm_ros check_model --model" in case["outcome"], case


def _fuzzed(scratch: Path, *arguments: str) -> list[dict[str, Any]]:
    paths = [str(ROOT), str(ROOT / "test" / "support"), os.environ.get("PYTHONPATH", "")]
    fuzzer = subprocess.run(
        [sys.executable, str(ROOT / "test" / "support" / "model_fuzzer.py"), str(scratch), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True,
    )  # fmt: skip
    assert fuzzer.returncode == 0, fuzzer.stderr
    return [json.loads(line) for line in fuzzer.stdout.splitlines()]


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


def test_a_changed_value_in_a_sidecar_is_noticed(tmp_path: Path) -> None:
    """Such as another size, with which an engine would run all the same."""
    engine = tmp_path / SIDECAR.file
    written = SIDECAR.write(tmp_path)
    assert EngineSidecar.read(engine) == SIDECAR
    for before, after in (('"max_context": 99', '"max_context": 98'), ("fp16", "bf16"), ('"8.7"', '"8.6"')):
        text = written.read_text()
        written.write_text(text.replace(before, after))
        with pytest.raises(EngineError, match=r"it is damaged: its values are not those that were written.*--force"):
            EngineSidecar.read(engine)
        written.write_text(text)
    values = json.loads(written.read_text())
    del values["sha256"]  # as earlier versions wrote it
    written.write_text(json.dumps(values))
    assert EngineSidecar.read(engine) == SIDECAR


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
