from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from resident_memory import fresh_memory

from litevlm_ros import machine
from litevlm_ros.machine import gpu_load, gpu_memory_in_use, own_gpu_memory, resident_bytes


def test_resident_memory_grows_with_what_is_kept() -> None:
    before = resident_bytes()
    with fresh_memory(64 << 20):
        assert 60 << 20 < resident_bytes() - before < 80 << 20


def test_a_jetson_tells_tenths_of_a_percent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "load").write_text("415\n")
    monkeypatch.setattr(machine, "JETSON_LOAD", (str(tmp_path / "nowhere"), str(tmp_path / "load")))
    assert gpu_load() == 41.5


OWN = os.getpid()


class Nvml:
    """One GPU that is busy for 73 % of the time."""

    def __init__(self, status: int = 0) -> None:
        self.status = status

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:
        return self.status

    def nvmlDeviceGetUtilizationRates(self, handle: ctypes.c_void_p, load: Any) -> int:
        load._obj.gpu = 73
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: ctypes.c_void_p, memory: Any) -> int:
        memory._obj.used = 5_000_000_000
        return 0

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: ctypes.c_void_p, count: Any, processes: Any) -> int:
        count._obj.value = 2
        processes[0].pid, processes[0].memory = 1, 3_000_000_000
        processes[1].pid, processes[1].memory = OWN, 2_000_000_000
        return 0


def test_other_gpus_are_asked_through_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "JETSON_LOAD", ())
    monkeypatch.setattr(machine, "_nvml", Nvml)
    assert gpu_load() == 73.0
    monkeypatch.setattr(machine, "_nvml", lambda: Nvml(status=6))
    assert gpu_load() is None
    monkeypatch.setattr(machine, "_nvml", lambda: None)
    assert gpu_load() is None


def test_memory_of_the_gpu_and_of_this_process_is_told_through_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_nvml", Nvml)
    assert gpu_memory_in_use() == 5_000_000_000
    assert own_gpu_memory() == 2_000_000_000
    monkeypatch.setattr(os, "getpid", lambda: 77)
    assert own_gpu_memory() is None, "as in a container that has process numbers of its own"
    for nvml in (None, Nvml(status=6)):
        monkeypatch.setattr(machine, "_nvml", lambda nvml=nvml: nvml)
        assert gpu_memory_in_use() is None
        assert own_gpu_memory() is None


def test_a_driver_that_does_not_start_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    machine._nvml.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(nvmlInit_v2=lambda: 9))
    assert machine._nvml() is None
    machine._nvml.cache_clear()


def test_swap_that_cannot_be_read_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr(machine.psutil, "swap_memory", fail)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: SimpleNamespace(available=5 << 30))
    assert machine.available_bytes() == 5 << 30
