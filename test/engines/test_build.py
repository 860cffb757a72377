"""Engines are built where they are missing or do not fit: most tests build the tiny model's with TensorRT-RTX."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_internvl import model_directory

from litevlm_ros.engines import build
from litevlm_ros.engines import onnx_to_engine as builder
from litevlm_ros.engines.build import BuildRequest, build_engines, build_memory, check_memory
from litevlm_ros.engines.profiles import Sizes
from litevlm_ros.engines.sidecar import EngineSidecar
from litevlm_ros.errors import ConfigError, EngineError, OutputError
from litevlm_ros.model_directory import TEXT, VISION, sidecar_file
from litevlm_ros.precision import PRECISIONS


def real_build(test: Any) -> Any:
    """Marks a test that builds engines, whatever else the machine does meanwhile."""
    return pytest.mark.slow(pytest.mark.timeout(600)(test))


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "find_device", lambda: None)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with both engines for compute capability 8.9."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (x86-64 only)")
    directory = tmp_path_factory.mktemp("engines") / "model"
    shutil.copytree(model_directory(), directory)
    for graph in directory.glob("*.onnx*"):
        graph.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "find_device", lambda: None)
        lines: list[str] = []
        build_engines(request(directory), lines.append)
    assert [line for line in lines if "building (there is none yet)" in line] == lines[:1] + lines[3:4]
    return directory


@pytest.fixture
def model(built: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    copy = tmp_path / "model"
    shutil.copytree(built, copy)
    return copy


def request(model: Path, **changes: Any) -> BuildRequest:
    precisions = {VISION: "fp16", TEXT: "fp16"}
    made = BuildRequest(model, model, precisions, Sizes(3, 512), target=(8, 9))
    return replace(made, **changes)


def reasons(asked: BuildRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns what a build says about both engines. Nothing is built."""
    monkeypatch.setattr(build, "_build", lambda *arguments: None)
    lines: list[str] = []
    build_engines(asked, lines.append)
    return lines


@real_build
def test_engines_sidecars_and_graphs_have_the_documented_names(built: Path) -> None:
    assert sorted(file.name for file in built.iterdir() if file.is_file()) == [
        "text_decoder.onnx", "text_decoder_fp16.engine", "text_decoder_fp16.engine.json",
        "vision_encoder.onnx", "vision_encoder_fp16.engine", "vision_encoder_fp16.engine.json",
    ]  # fmt: skip
    sidecar = EngineSidecar.read(built / "text_decoder_fp16.engine")
    assert sidecar.check_file(built / sidecar.file) == []
    assert sidecar.check_weights(built) == []
    assert (sidecar.flavour, sidecar.compute_capabilities, sidecar.precision_built) == (
        "tensorrt_rtx", ("8.9",), "fp16"
    )  # fmt: skip
    assert (sidecar.max_prompt, sidecar.max_context, sidecar.max_tiles, sidecar.calibration) == (512, 512, 0, "")
    assert EngineSidecar.read(built / "vision_encoder_fp16.engine").max_tiles == 3


@real_build
def test_what_is_up_to_date_stays(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reasons(request(model), monkeypatch) == [
        "vision_encoder_fp16.engine: up to date", "text_decoder_fp16.engine: up to date"
    ]  # fmt: skip


@real_build
def test_every_reason_to_build_again_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(**values: Any) -> None:
        file = sidecar_file(model / "text_decoder_fp16.engine")
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    original = sidecar_file(model / "text_decoder_fp16.engine").read_text()
    for values, reason in (
        ({"version": "0.9"}, "it was built by version 0.9 and TensorRT-RTX 1.4"),
        ({"compute_capabilities": ["8.6"]}, "it was built for compute capability 8.6, not 8.9"),
        ({"weights_sha256": "0"}, "the weights have changed"),
        ({"graph_sha256": "0"}, "this version draws another graph"),
        ({"engine_sha256": "0"}, "is damaged"),
        ({"format": 99}, "cannot be used"),
    ):
        change(**values)
        vision, text = reasons(request(model), monkeypatch)
        assert vision == "vision_encoder_fp16.engine: up to date"
        assert text.startswith("text_decoder_fp16.engine: building (")
        assert reason in text
        sidecar_file(model / "text_decoder_fp16.engine").write_text(original)
    assert all("another max_tiles" in line for line in reasons(request(model, sizes=Sizes(4, 600)), monkeypatch))
    assert all("building (--force)" in line for line in reasons(request(model, force=True), monkeypatch))
    (model / "text_decoder_fp16.engine").unlink()
    assert "there is none yet" in reasons(request(model), monkeypatch)[1]


@real_build
def test_graphs_that_are_there_are_left_alone(model: Path) -> None:
    """They may be those that ONNX Runtime runs on the CPU."""
    (model / "vision_encoder.onnx").write_bytes(b"somebody's own")
    build_engines(request(model, precisions={VISION: "fp16"}, force=True), lambda line: None)
    assert (model / "vision_encoder.onnx").read_bytes() == b"somebody's own"
    assert (
        EngineSidecar.read(model / "vision_encoder_fp16.engine").check_file(model / "vision_encoder_fp16.engine") == []
    )
    assert not list(model.glob(".build_*"))


@real_build
def test_a_full_disk_leaves_neither_half_an_engine_nor_a_sidecar(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        if ".engine." in os.readlink(f"/proc/self/fd/{descriptor}"):  # the graph before it found room
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"vision_encoder_fp16\.engine cannot be written \(No space left on device\)"):
        build_engines(request(model, precisions={VISION: "fp16"}, force=True), lambda line: None)
    assert not sidecar_file(model / "vision_encoder_fp16.engine").exists()
    assert not list(model.glob("*.part"))


@real_build
def test_a_full_disk_is_explained_while_the_graph_is_drawn(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("litevlm_ros.convert.engine_graph.write_engine_graph", full)
    with pytest.raises(OutputError, match=r"cannot be written .*make room"):
        build_engines(request(model, precisions={VISION: "fp16"}, force=True), lambda line: None)
    assert not list(model.glob(".build_*"))


@real_build
def test_fp8_below_ada_is_said_before_anything_is_built(model: Path) -> None:
    lines: list[str] = []
    with pytest.raises(ConfigError, match="without a GPU"):
        build_engines(request(model, precisions={TEXT: "fp8"}, target=(8, 6)), lines.append)
    assert lines[0].startswith(
        "text_decoder: fp8 was asked for, int4 is built, because a GPU of compute capability 8.6"
    )
    with pytest.raises(ConfigError, match="cannot be built in fp8"):
        build_engines(request(model, precisions={TEXT: "fp8"}, target=(8, 6), strict=True), lines.append)


@real_build
def test_an_orins_engines_are_explained_and_left_to_an_orin(model: Path) -> None:
    lines: list[str] = []
    with pytest.raises(ConfigError, match="engines are built on a Jetson"):
        build_engines(request(model, precisions={VISION: "fp8", TEXT: "fp8"}, target=(8, 7)), lines.append)
    assert ["int8 is built" in lines[0], "int4 is built" in lines[1]] == [True, True]
    assert "compute capability 8.7 has no FP8" in lines[0]


@real_build
def test_too_little_memory_is_said_before_the_build(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "build_memory", lambda weights: 1 << 60)
    with pytest.raises(EngineError, match="add swap"):
        build_engines(request(model, force=True), lambda line: None)


def test_the_graph_hash_tells_parts_and_precisions_apart() -> None:
    hashes = {build.graph_hash(part, precision) for part in (VISION, TEXT) for precision in ("fp16", "fp8")}
    assert len(hashes) == 4
    assert build.graph_hash(TEXT, "fp8") == build.graph_hash(TEXT, "int4")


@pytest.mark.parametrize("part", [VISION, TEXT])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_sources_that_the_graph_hash_names_are_there(part: str, precision: str) -> None:
    assert [file for file in build.graph_sources(part, precision) if not file.is_file()] == []


# --- memory


@pytest.fixture
def _seven_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "available_bytes", lambda: 7 << 30)


@pytest.mark.usefixtures("_seven_gib")
def test_a_build_that_fits_is_let_through() -> None:
    check_memory(TEXT, 7 << 30)


@pytest.mark.usefixtures("_seven_gib")
def test_a_build_that_does_not_fit_is_refused_with_the_swap_that_is_missing() -> None:
    with pytest.raises(EngineError) as raised:
        check_memory(TEXT, 10 << 30)
    message = str(raised.value)
    assert "text decoder takes up to 10.7 GB of memory and 7.5 GB are free" in message
    assert "fallocate -l 4G" in message, "3 GiB and one to spare"
    assert "smaller model" in message
    assert "--skip-memory-check" in message


def test_memory_grows_with_the_weights() -> None:
    assert 5e9 < build_memory(988_000_000) < 6e9, "5.5 GB were measured for InternVL2-1B's text decoder"
    assert build_memory(0) == 1 << 30
