from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from litevlm_ros.convert.model_export import ExportedGraph
from litevlm_ros.errors import CheckpointError
from litevlm_ros.tools import export_onnx

model_export = pytest.importorskip("litevlm_ros.convert.model_export", reason="export needs torch and onnxscript")


class Exports:
    """Stands in for the two exports and remembers how they were called."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def recorder(self, name: str) -> object:
        def export(model: Path, output: Path, dtype: str, *, share: bool, check: bool) -> ExportedGraph:
            self.calls.append((name, model, output, dtype, share, check))
            return ExportedGraph(output / f"{name}.onnx", 7, 2_000_000, 5_000_000 if share else 0, 1e-6, 1.0)

        return export


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> Exports:
    recorded = Exports()
    monkeypatch.setattr(model_export, "export_vision_encoder", recorded.recorder("vision"))
    monkeypatch.setattr(model_export, "export_text_decoder", recorded.recorder("text"))
    return recorded


def test_both_graphs_go_into_the_model_directory(exports: Exports, capsys: pytest.CaptureFixture[str]) -> None:
    assert export_onnx.main(["--model", "somewhere"]) == 0
    here = Path("somewhere")
    assert exports.calls == [("vision", here, here, "fp32", False, True), ("text", here, here, "fp32", False, True)]
    assert "7 nodes, 2.0 MB, relative error 1.0e-06" in capsys.readouterr().out


def test_options(exports: Exports, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--output", "there", "--dtype", "fp16", "--skip-vision", "--share-weights", "--skip-check"]
    assert export_onnx.main(options) == 0
    assert exports.calls == [("text", Path("models"), Path("there"), "fp16", True, False)]
    assert "5.0 MB shared" in capsys.readouterr().out


def test_nothing_to_do(exports: Exports, capsys: pytest.CaptureFixture[str]) -> None:
    assert export_onnx.main(["--skip-vision", "--skip-text"]) == 1
    assert exports.calls == []
    assert "--skip-vision" in capsys.readouterr().err


def test_errors_are_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise CheckpointError("x.safetensors is damaged")

    monkeypatch.setattr(model_export, "export_vision_encoder", fail)
    assert export_onnx.main([]) == 1
    assert capsys.readouterr().err == "x.safetensors is damaged\n"


def test_help_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from litevlm_ros.tools.export_onnx import main; main(['--help'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert "--share-weights" in result.stdout
