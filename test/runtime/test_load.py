from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from package_files import ROOT
from tiny_internvl import model_directory

from litevlm_ros.config import PipelineConfig
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime import load
from litevlm_ros.runtime.load import load_backend, over_budget


@pytest.fixture
def _resident(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "resident_bytes", lambda: 204_800_000)


@pytest.mark.usefixtures("_resident")
def test_process_and_device_count_together() -> None:
    device = {"engines": 1_000_000_000, "cache": 50_000_000}
    assert over_budget(1254, device) == ""
    warning = over_budget(1253, device)
    assert warning.startswith(
        "The model takes 1254 MB, more than memory_budget_mb (1253): engines 1000 MB, the process 205 MB, cache 50 MB. "
    )


@pytest.mark.usefixtures("_resident")
def test_no_budget_is_never_exceeded() -> None:
    assert over_budget(0, {"engines": 10**12}) == ""


def test_loading_warns(caplog: pytest.LogCaptureFixture) -> None:
    model = ModelConfig.from_directory(model_directory())
    with caplog.at_level(logging.WARNING, "litevlm_ros"):
        load_backend(PipelineConfig(model_directory(), memory_budget_mb=100_000), model)
        assert "memory_budget_mb" not in caplog.text
        load_backend(PipelineConfig(model_directory(), memory_budget_mb=1), model)
    assert "more than memory_budget_mb (1)" in caplog.text


def test_no_backend_is_imported_before_it_is_asked_for() -> None:
    code = "import sys, litevlm_ros.runtime.load as load; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in found.stdout.split()}
    assert "litevlm_ros" in imported
    assert not imported & {"onnxruntime", "pycuda", "cuda", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"}
