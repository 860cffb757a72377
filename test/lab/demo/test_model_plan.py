from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from litevlm_ros.download.catalog import PUBLISHED
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.demo import model_plan
from litevlm_ros.lab.demo.model_plan import make_plan
from litevlm_ros.lab.demo.wanted_model import WantedModel
from litevlm_ros.machine import Device
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.runtime.tensorrt import engine_files

GB = 10**9


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, with 100 GB of disk and 32 GB of memory free."""
    monkeypatch.setattr(engine_files, "machine_obstacle", lambda: "there is no NVIDIA GPU here")
    monkeypatch.setattr(model_plan, "free_bytes", lambda directory: 100 * GB)
    monkeypatch.setattr(model_plan, "available_bytes", lambda: 32 * GB)


def with_gpu(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> None:
    device = Device("A GPU", (8, 9), int(gigabytes * GB), False)
    monkeypatch.setattr(engine_files, "machine_obstacle", lambda: None)
    monkeypatch.setattr(model_plan, "find_device", lambda: device)
    monkeypatch.setattr(model_plan, "gpu_memory_in_use", lambda: 0)


def named(directory: Path) -> WantedModel:
    """A model of a billion weights on the hub."""
    return WantedModel("a-model", PUBLISHED["internvl2-1b"], directory / "a-model", GB, 2 * GB)


def test_all_that_it_takes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    plan = make_plan(named(tmp_path))
    assert [step.name for step in plan.steps] == ["download", "split", "export"]
    assert plan.kept_disk == 2 * GB + plan.steps[2].disk
    assert plan.peak_disk == max(4 * GB, plan.kept_disk), "the download goes when it is split"
    text = "\n".join(plan.lines())
    assert "will run on the CPU: there is no NVIDIA GPU here" in text
    assert "1. download 2.00 GB from https://mirror.example: 3 min at 10 MB/s" in text
    assert "3. export graphs for the CPU in int8" in text
    assert "100.00 GB are free" in text
    assert "32.00 GB are free" in text
    plan.check()


def test_pytorch_counts_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    plan = make_plan(named(tmp_path))
    assert [step.name for step in plan.steps] == ["packages", "download", "split", "export"]
    assert plan.peak_disk > 0.9 * GB + 2 * GB
    demo = WantedModel("demo", None, demo_model_directory(), 6_200_000, 12_400_000)
    assert make_plan(demo).is_ready, "a model that is ready needs none of it"


def test_a_download_that_has_begun_is_shorter(tmp_path: Path) -> None:
    wanted = named(tmp_path)
    (wanted.directory / ".download").mkdir(parents=True)
    with (wanted.directory / ".download" / "x.partial").open("wb") as file:
        file.truncate(GB)
    plan = make_plan(wanted)
    assert "download 1.00 GB that are missing" in plan.steps[0].what
    assert plan.peak_disk == max(3 * GB, plan.kept_disk)


def test_a_ready_model_takes_nothing(tmp_path: Path) -> None:
    plan = make_plan(WantedModel("demo", None, demo_model_directory(), 6_200_000, 12_400_000))
    assert plan.is_ready
    assert plan.lines() == [
        f"demo: reusing {demo_model_directory()}, which has everything to run on the CPU: there is no NVIDIA GPU here"
    ]
    plan.check()


@pytest.mark.parametrize(
    ("gigabytes", "backend", "precision"),
    [(80, "tensorrt", "fp16"), (2.5, "tensorrt", "fp8"), (1, "onnxruntime", "int8")],
)
def test_the_gpu_is_taken_where_the_model_fits_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gigabytes: float, backend: str, precision: str
) -> None:
    with_gpu(monkeypatch, gigabytes)
    plan = make_plan(named(tmp_path))
    assert (plan.backend, plan.precision) == (backend, precision)
    assert plan.steps[-1].name == ("build" if backend == "tensorrt" else "export")
    text = "\n".join(plan.lines())
    assert ("on the GPU" in text) == (backend == "tensorrt")
    assert ("A GPU has 1.00 GB of memory free and 2.00 GB are needed" in text) == (backend != "tensorrt")


def test_too_little_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_plan, "free_bytes", lambda directory: 3 * GB)
    with pytest.raises(ConfigError, match=r"a-model takes 4\.\d\d GB of disk and .* has 3\.00 GB free; .*--models"):
        make_plan(named(tmp_path)).check()


def test_too_little_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_plan, "available_bytes", lambda: GB)
    with pytest.raises(ConfigError, match=r"of memory and 1\.00 GB are free, swap included; close other programs"):
        make_plan(named(tmp_path)).check()


def test_a_directory_of_others_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match=f"a-model cannot be written .permission denied for {tmp_path}."):
        make_plan(named(tmp_path)).check()
