from __future__ import annotations

import logging
from pathlib import Path

import pytest
from tiny_internvl import model_directory

from litevlm_ros.config import PipelineConfig
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.backends import load_backend
from litevlm_ros.runtime.memory_budget import over_budget


@pytest.fixture
def status(tmp_path: Path) -> Path:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmRSS:\t  200000 kB\n")
    return status


def test_process_and_device_count_together(status: Path) -> None:
    device = {"engines": 1_000_000_000, "cache": 50_000_000}
    assert over_budget(1254, device, status=status) == ""
    warning = over_budget(1253, device, status=status)
    assert warning.startswith(
        "The model takes 1254 MB, more than memory_budget_mb (1253): engines 1000 MB, the process 205 MB, cache 50 MB. "
    )


def test_no_budget_is_never_exceeded(status: Path) -> None:
    assert over_budget(0, {"engines": 10**12}, status=status) == ""


def test_a_system_that_does_not_say_counts_the_device_alone(tmp_path: Path) -> None:
    assert "engines 3 MB, the process 0 MB" in over_budget(2, {"engines": 3_000_000}, status=tmp_path / "none")


def test_loading_warns(caplog: pytest.LogCaptureFixture) -> None:
    model = ModelConfig.from_directory(model_directory())
    with caplog.at_level(logging.WARNING, "litevlm_ros"):
        load_backend(PipelineConfig(model_directory(), memory_budget_mb=100_000), model)
        assert "memory_budget_mb" not in caplog.text
        load_backend(PipelineConfig(model_directory(), memory_budget_mb=1), model)
    assert "more than memory_budget_mb (1)" in caplog.text
