"""Every precision on the fake GPU: what is built where, what is timed, and what is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_tensorrt
import pytest
from fake_cuda import FakeCuda
from tiny_internvl import model_directory

from litevlm_ros.config import PipelineConfig
from litevlm_ros.convert.model_description import copy_description
from litevlm_ros.engines.build import BuildRequest
from litevlm_ros.errors import ConfigError, EngineError
from litevlm_ros.lab.benchmarking import precision_times
from litevlm_ros.lab.benchmarking.precision_times import precision_times_table, time_precisions
from litevlm_ros.lab.benchmarking.stages import camera_image
from litevlm_ros.types import View

VIEWS = [View("front", camera_image(0, 80, 60))]


@pytest.fixture(autouse=True)
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    cuda = FakeCuda()
    fake_tensorrt.install(monkeypatch, cuda)
    monkeypatch.setattr(precision_times, "find_device", lambda: None)
    yield cuda
    fake_tensorrt.forget()


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[BuildRequest]:
    """Records the builds of a builder that has no int8."""
    asked: list[BuildRequest] = []

    def build(request: BuildRequest, report: Any) -> None:
        asked.append(request)
        precision = request.precisions["text_decoder"]
        if precision == "int8":
            raise EngineError("no int8 here")
        copy_description(request.model, request.output)
        fake_tensorrt.write_engines(request.model, request.output, precision)

    monkeypatch.setattr(precision_times, "build_engines", build)
    return asked


def time(output: Path, *precisions: str, **options: Any) -> Any:
    config = PipelineConfig(model_directory())
    return time_precisions(config, output, precisions, VIEWS, 4, 2, notify=lambda line: None, **options)


def test_each_precision_is_built_and_timed(requests: list[BuildRequest], tmp_path: Path) -> None:
    results, failed = time(tmp_path, "fp16", "int8", "fp8", inspect=lambda backend: backend.name)
    assert [(request.output, request.precisions["text_decoder"]) for request in requests] == [
        (tmp_path, "fp16"), (tmp_path, "int8"), (tmp_path, "fp8")
    ]  # fmt: skip
    assert failed == {"int8": "no int8 here"}
    assert [(row.name, row.built["text_decoder"]) for row in results] == [("fp16", "fp16"), ("fp8", "fp8")]
    for row in results:
        assert row.inspected == "tensorrt"
        assert row.times["total"] > row.times["vision"] > 0
        assert row.engines["vision_encoder"] == (
            tmp_path / f"vision_encoder_{row.name}.engine"
        ).stat().st_size  # fmt: skip
    lines = precision_times_table(results, 4).splitlines()
    assert len(lines) == 4
    assert "fp8/fp8" in lines[2]
    assert lines[-1].startswith(f"prompt of {results[0].prompt_tokens} tokens; fastest: vision fp")


def test_what_is_no_precision_is_said_before_anything_is_built(requests: list[BuildRequest], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has 'fp4'; allowed: fp16, bf16, fp8, int8, int4"):
        time(tmp_path, "fp16", "fp4")
    assert requests == []


def test_nothing_that_runs_is_an_error(requests: list[BuildRequest], tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="int8: no int8 here"):
        time(tmp_path, "int8")
