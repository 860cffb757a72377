from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from package_files import ROOT

from litevlm_ros.engines.build import BuildRequest
from litevlm_ros.errors import EngineError
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.tools import build_engines
from litevlm_ros.tools.build_engines import main


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[BuildRequest]:
    """Returns the requests that would have been built."""
    asked: list[BuildRequest] = []
    monkeypatch.setattr("litevlm_ros.engines.build.build_engines", lambda request, report: asked.append(request))
    return asked


def test_fp8_is_short_for_both_parts(requests: list[BuildRequest]) -> None:
    assert main(["--fp8"]) == 0
    assert requests[0].precisions == {VISION: "fp8", TEXT: "fp8"}
    assert (requests[0].model, requests[0].output, requests[0].target) == (Path("models"), Path("models"), None)
    assert not requests[0].recalibrate


def test_parts_may_differ_or_be_left_out(requests: list[BuildRequest]) -> None:
    assert main(["--precision", "fp16", "--text-precision", "int4"]) == 0
    assert main(["--fp8", "--vision-precision", "fp16", "--skip-text"]) == 0
    assert [request.precisions for request in requests] == [{VISION: "fp16", TEXT: "int4"}, {VISION: "fp16"}]


def test_every_flag_arrives(requests: list[BuildRequest]) -> None:
    files = ["--model", "m", "--output", "o", "--calibration-images", "pictures"]
    sizes = ["--max-tiles", "3", "--max-context", "900", "--workspace-mib", "512"]
    assert (
        main(
            [
                *files,
                *sizes,
                "--target-sm",
                "sm_89",
                "--force",
                "--strict",
                "--skip-memory-check",
            ]
        )
        == 0
    )
    (request,) = requests
    assert (request.model, request.output, request.recalibrate) == (Path("m"), Path("o"), True)
    assert isinstance(request.calibration, partial)
    assert request.calibration.args == (Path("m"), Path("pictures"))
    assert (request.sizes.max_tiles, request.sizes.max_context) == (3, 900)
    assert (request.target, request.workspace_mib) == ((8, 9), 512)
    assert (request.force, request.strict, request.check_memory) == (True, True, False)


def test_whole_graphs_are_written_only_when_asked_for(
    requests: list[BuildRequest], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[Any] = []
    monkeypatch.setattr(build_engines, "export_and_tell", lambda *arguments: written.append(arguments))
    assert main(["--model", "m", "--text-precision", "fp8"]) == 0
    assert written == []
    assert main(["--model", "m", "--output", "o", "--fp8", "--onnx", "--skip-text"]) == 0
    assert written == [(Path("m"), Path("o"), {VISION: "fp32"})], "which runs best on a CPU"

    def fail(*arguments: Any) -> None:
        raise ImportError("No module named 'torch'")

    monkeypatch.setattr(build_engines, "export_and_tell", fail)
    assert main(["--onnx"]) == 1
    assert "Export needs torch, onnx and onnxscript (No module named 'torch')" in capsys.readouterr().err
    assert len(requests) == 3, "engines do not wait for graphs"


def test_nothing_left_to_build_is_an_error(requests: list[BuildRequest], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--skip-text", "--skip-vision"]) == 1
    assert "leave nothing to build" in capsys.readouterr().err
    assert requests == []


def test_errors_are_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any) -> None:
        raise EngineError("it does not fit")

    monkeypatch.setattr("litevlm_ros.engines.build.build_engines", fail)
    assert main([]) == 1
    assert capsys.readouterr().err == "it does not fit\n"
    assert main(["--target-sm", "new"]) == 1
    assert "compute capability 'new' is not understood" in capsys.readouterr().err


def test_ctrl_c_ends_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("litevlm_ros.engines.build.build_engines", interrupt)
    assert main([]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_script_of_the_checkout_is_the_same_tool(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "convert_to_tensorrt.py"
    result = subprocess.run(
        [sys.executable, script, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0
    assert "--fp8" in result.stdout
