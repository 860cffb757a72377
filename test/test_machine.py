from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from resident_memory import fresh_memory

from litevlm_ros import machine
from litevlm_ros.machine import gpu_load, resident_bytes


def test_resident_memory_grows_with_what_is_kept() -> None:
    before = resident_bytes()
    with fresh_memory(64 << 20):
        assert 60 << 20 < resident_bytes() - before < 80 << 20


def test_a_jetson_tells_tenths_of_a_percent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "load").write_text("415\n")
    monkeypatch.setattr(machine, "JETSON_LOAD", (str(tmp_path / "nowhere"), str(tmp_path / "load")))
    assert gpu_load() == 41.5


class Nvml:
    """One GPU that is busy for 73 % of the time."""

    def __init__(self, status: int = 0) -> None:
        self.status = status

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:
        return self.status

    def nvmlDeviceGetUtilizationRates(self, handle: ctypes.c_void_p, load: Any) -> int:
        load._obj.gpu = 73
        return 0


def test_other_gpus_are_asked_through_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "JETSON_LOAD", ())
    monkeypatch.setattr(machine, "_nvml", Nvml)
    assert gpu_load() == 73.0
    monkeypatch.setattr(machine, "_nvml", lambda: Nvml(status=6))
    assert gpu_load() is None
    monkeypatch.setattr(machine, "_nvml", lambda: None)
    assert gpu_load() is None


def test_a_driver_that_does_not_start_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    machine._nvml.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(nvmlInit_v2=lambda: 9))
    assert machine._nvml() is None
    machine._nvml.cache_clear()
