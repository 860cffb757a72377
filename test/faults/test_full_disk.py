"""A disk that is full in the middle of exporting, building or installing: said so, and nothing half-made is left."""

from __future__ import annotations

import importlib
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="exports with PyTorch")

from tiny_checkpoint import write_checkpoint
from tiny_internvl import model_directory

LARGEST_FILE = 20_000
"""Bytes, less than any graph or engine has."""


@contextmanager
def full_disk() -> Iterator[None]:
    """Writing more of a file fails, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tool", "arguments", "named"),
    [
        ("export_onnx", ["--skip-vision", "--skip-check"], ""),
        (
            "build_engines",
            ["--precision", "fp16", "--skip-vision", "--target-sm", "sm_89", "--skip-memory-check"],
            "text_decoder_fp16.engine",
        ),
        ("download_models", [], ""),
    ],
)
def test_nothing_half_made_is_left(
    tool: str, arguments: list[str], named: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if tool == "build_engines":
        pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (x86-64 only)")
    model, output = model_directory(), tmp_path / "output"
    if tool == "download_models":
        model = write_checkpoint(tmp_path / "checkpoint")
    main = importlib.import_module(f"litevlm_ros.tools.{tool}").main
    with full_disk():
        status = main(["--model", str(model), "--output", str(output), *arguments])
    told = capfd.readouterr().err
    assert status == 1
    assert "Traceback" not in told
    assert f"{output / named} cannot be written" in told
    assert [file.name for file in output.rglob("*") if file.is_file() and file.stat().st_size >= LARGEST_FILE] == []
    ends = ("onnx", "engine", "engine.json", "safetensors")
    assert [file for end in ends for file in output.glob(f"**/*.{end}")] == []
