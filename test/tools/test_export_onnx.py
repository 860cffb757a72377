from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litevlm_ros.convert.export import ExportedGraph
from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.tools import export_onnx

model_export = pytest.importorskip("litevlm_ros.convert.export", reason="export needs torch and onnxscript")


class Exports:
    """Stands in for the export and remembers how it was called."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.exact = False

    def export(
        self,
        model: Path,
        output: Path,
        precisions: dict[str, str],
        *,
        share: bool,
        check: bool,
        calibration: Any,
        exact: bool,
    ) -> Iterator[ExportedGraph]:
        self.calls.append((model, output, precisions, share, check, calibration.args))
        self.exact = exact
        for part, precision in precisions.items():
            packed = 16 if precision in ("fp8", "int4") else 0
            chosen = "7 pictures" if precision == "int4" else ""
            error = 1e-6 if check else None
            yield ExportedGraph(
                output / f"{part}.onnx", precision, 2_000_000, 5_000_000 if share else 0, error, 1.0, packed, chosen
            )


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> Exports:
    recorded = Exports()
    monkeypatch.setattr(model_export, "export_graphs", recorded.export)
    return recorded


def test_both_graphs_go_into_the_model_directory(exports: Exports, capsys: pytest.CaptureFixture[str]) -> None:
    assert export_onnx.main(["--model", "somewhere"]) == 0
    here = Path("somewhere")
    assert exports.calls == [(here, here, {VISION: "fp32", TEXT: "fp32"}, False, True, (here, None, 2))]
    assert "fp32, 2.0 MB, relative error 1.0e-06, 1 s" in capsys.readouterr().out


def test_options(exports: Exports, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--output", "there", "--precision", "fp16", "--skip-vision", "--share-weights", "--skip-check"]
    assert export_onnx.main(options) == 0
    assert exports.calls == [(Path("models"), Path("there"), {TEXT: "fp16"}, True, False, (Path("models"), None, 2))]
    assert "fp16, 2.0 MB + 5.0 MB shared, 1 s" in capsys.readouterr().out


def test_parts_in_precisions_of_their_own(exports: Exports, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--precision", "fp8", "--text-precision", "int4", "--calibration-images", "pictures"]
    assert export_onnx.main(options) == 0
    assert exports.calls[0][2:] == ({VISION: "fp8", TEXT: "int4"}, False, True, (Path("models"), Path("pictures"), 2))
    assert not exports.exact
    said = capsys.readouterr().out.splitlines()
    stored = "  16 matrices are stored as in an engine and"
    assert f"{stored} restored to fp32 when loaded" in said
    assert f"{stored} multiplied in 8 bits; their scales were chosen with 7 pictures" in said


def test_exact_graphs_have_all_calibration_pictures(exports: Exports) -> None:
    assert export_onnx.main(["--precision", "int4", "--exact"]) == 0
    assert exports.exact
    assert exports.calls[0][-1] == (Path("models"), None, 16)


def test_nothing_to_do(exports: Exports, capsys: pytest.CaptureFixture[str]) -> None:
    assert export_onnx.main(["--skip-vision", "--skip-text"]) == 1
    assert exports.calls == []
    assert "--skip-vision" in capsys.readouterr().err


def test_errors_are_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise CheckpointError("x.safetensors is damaged")

    monkeypatch.setattr(model_export, "export_graphs", fail)
    assert export_onnx.main([]) == 1
    assert capsys.readouterr().err == "x.safetensors is damaged\n"


def test_help_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from litevlm_ros.tools.export_onnx import main; main(['--help'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert "--share-weights" in result.stdout
