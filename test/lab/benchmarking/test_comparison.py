"""The comparison as tables, JSON and a chart, from figures that nobody measured."""

from __future__ import annotations

import json
from pathlib import Path

import fake_tensorrt
import pytest
from fake_cuda import FakeCuda
from tiny_internvl import model_directory

from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.benchmarking import comparison, exact_stages
from litevlm_ros.lab.benchmarking.accuracy import Accuracy
from litevlm_ros.lab.benchmarking.build_time import Build
from litevlm_ros.lab.benchmarking.comparison import compare_named
from litevlm_ros.lab.benchmarking.comparison_result import Caption, Comparison, EngineFacts, StageTime, Way
from litevlm_ros.lab.benchmarking.comparison_table import comparison_tables
from litevlm_ros.lab.benchmarking.exact_stages import Stage
from litevlm_ros.machine import Device

FACTS = EngineFacts(
    build=Build(19.5, 2_500_000_000, 80_000_000),
    load_seconds=4.25,
    cutting={"host": 10.9, "device": 1.4},
    memory={"text weights": 990_000_000, "KV cache": 25_000_000},
    accuracy=Accuracy({1: 8.6e-4, 6: 9.1e-4}, tokens=64, distinct=50, equal=63, clear=40, differing=0),
)


def caption(views: int, scale: float) -> Caption:
    times = {"vision": 2.0 * scale, "prefill": 1.5 * scale, "decode_token": 0.9 * scale, "total": 40.0 * scale}
    return Caption(views, 300 * views, times)


def way(name: str, scale: float, memory: int | None, facts: EngineFacts | None = None) -> Way:
    stages = {"vision, 1 tile": StageTime(2.0 * scale, 1.0)}
    if facts:
        stages["vision, 12 tiles"] = StageTime(20.0, 10.0)
    return Way(name, stages, (caption(1, scale), caption(6, scale)), memory, facts)


COMPARISON = Comparison(
    ways=(way("engines fp16/fp16", 1, 1_200_000_000, FACTS), way("transformers, compiled", 2, None)),
    bandwidth=2.4e12, rate=790e12, tokens=32, runs=30, skipped=("fp8/fp8: not built",),
)  # fmt: skip


def cells(text: str) -> dict[str, list[str]]:
    """Returns the cells of each row of all tables, by the row's title."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


def test_the_tables_have_times_with_multiples_of_the_floor_and_facts_of_engines() -> None:
    report = json.loads(json.dumps(COMPARISON.json()))
    text = comparison_tables(report)
    assert "copy bandwidth of 2.40 TB/s and 790 TFLOP/s" in text
    assert "skipped: fp8/fp8: not built" in text
    found = cells(text)
    assert found["vision, 1 tile"] == ["2.00 (2.0x)", "4.00 (4.0x)"]
    assert found["vision, 12 tiles"] == ["20.00 (2.0x)", "-"]
    assert found["caption of 32 tokens, 6 views (1800 tokens)"] == ["40.0", "80.0"]
    assert found["memory of the process on the GPU, GB"] == ["1.20", "-"]
    assert found["`build_engines`, s"] == ["19.5"]
    assert found["six views of 1280x720 cut into tiles on the device, ms"] == ["1.40"]
    assert found["device memory for CUDA's context and modules, MB"] == ["185"]
    assert found["relative error of the visual tokens of 6 tiles against fp32"] == ["9.1e-04"]
    assert found["greedy tokens that differ, of those with a margin of 3 times the noise"] == ["0 of 40"]


def test_everything_goes_into_the_json() -> None:
    found = COMPARISON.json()
    assert found["machine"]["cpu"]
    assert found["skipped"] == ("fp8/fp8: not built",)
    assert found["ways"][0]["stages"]["vision, 1 tile"]["floor_ms"] == 1.0


def test_the_chart_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws")
    file = tmp_path / "new" / "comparison.png"
    COMPARISON.draw(file)
    assert file.read_bytes()[:4] == b"\x89PNG"
    assert file.stat().st_size > 10_000


def test_engines_are_built_loaded_and_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it on the fake GPU, without transformers, whose figures are given."""
    pytest.importorskip("torch", reason="the command needs PyTorch")
    monkeypatch.setattr(comparison, "require_transformers", lambda instead: None)
    cuda = FakeCuda()
    fake_tensorrt.install(monkeypatch, cuda)

    def build(model: Path, output: Path, *rest: object) -> Build:
        fake_tensorrt.write_engines(model, output)
        return Build(1.0, 2, 3)

    seen = []
    monkeypatch.setattr(comparison, "time_build", build)
    monkeypatch.setattr(comparison, "judge", lambda found, model: seen.append(found) or FACTS.accuracy)
    monkeypatch.setattr(comparison, "find_device", lambda: Device("Fake GPU", (9, 0), cuda.total, integrated=False))
    monkeypatch.setattr(comparison, "copy_bandwidth", lambda: 1e12)
    monkeypatch.setattr(comparison, "matrix_rate", lambda: 1e14)
    for module in (comparison, exact_stages):
        monkeypatch.setattr(module, "RESOLUTION", (64, 48))
    monkeypatch.setattr(comparison, "STAGES", tuple(map(Stage, ("vision", "prefill", "decode"), (2, 48, 48))))
    said: list[str] = []
    try:
        found = compare_named(model_directory(), "fp16/fp16,bf16/bf16", "", (1, 2), 4, 1, said.append)
    finally:
        fake_tensorrt.forget()
    (way,) = found.ways
    assert way.name == "engines fp16/fp16"
    assert list(way.stages) == ["vision, 2 tiles", "prefill of 48 tokens", "token behind 48 others"]
    assert all(time.ms > 0 and time.floor_ms > 0 for time in way.stages.values())
    assert [caption.views for caption in way.captions] == [1, 2]
    assert way.captions[1].prompt_tokens > way.captions[0].prompt_tokens
    assert way.engines is not None
    assert way.engines.cutting.keys() == {"host", "device"}
    assert way.engines.memory["KV cache"] > 0
    assert found.skipped[0].startswith("bf16/bf16: "), "engines that are not there are named"
    assert "skipped bf16/bf16" in said[-1]
    assert {tiles: len(rows) for tiles, rows in seen[0].visual.items()} == {1: 4, 6: 24}
    assert len(seen[0].tokens) == 64
    assert "| vision, 2 tiles |" in comparison_tables(json.loads(json.dumps(found.json())))


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="the command needs PyTorch")
    monkeypatch.setattr(comparison, "find_device", lambda: None)
    with pytest.raises(ConfigError, match="needs an NVIDIA GPU"):
        compare_named(model_directory(), "fp16/fp16", "", (1,), 4, 1)


def test_without_cuda_in_pytorch_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="the command needs PyTorch")
    monkeypatch.setattr(comparison, "find_device", lambda: Device("Fake GPU", (9, 0), 1 << 30, integrated=False))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="needs PyTorch for CUDA"):
        comparison.require_transformers("do without it")
