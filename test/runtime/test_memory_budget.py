from __future__ import annotations

import logging

import pytest
from tiny_internvl import model_directory

from litevlm_ros.config import PipelineConfig
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime import memory_budget
from litevlm_ros.runtime.load import load_backend
from litevlm_ros.runtime.memory_budget import over_budget


@pytest.fixture
def _resident(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "resident_bytes", lambda: 204_800_000)


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
