"""Engines are built where they are missing or do not fit: most tests build the tiny model's with TensorRT-RTX."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from package_files import DEMO_MODEL, ROOT

from litevlm_ros.engines import build, target
from litevlm_ros.engines.build import BuildRequest, build_engines
from litevlm_ros.engines.plan_archive import PlanArchive
from litevlm_ros.engines.shapes import Sizes, foreseen
from litevlm_ros.engines.sidecar import EngineSidecar
from litevlm_ros.errors import ConfigError, EngineError, OutputError
from litevlm_ros.machine import Device
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import PARTS, TEXT, VISION, runtime_cache_directory, sidecar_file, weight_bytes

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (build, target):
        monkeypatch.setattr(module, "find_device", lambda: None)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with both engines for compute capability 8.9."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (x86-64 only)")
    directory = tmp_path_factory.mktemp("engines") / "model"
    for part in PARTS:
        shutil.copytree(DEMO_MODEL / part, directory / part)
    with pytest.MonkeyPatch.context() as patch:
        for module in (build, target):
            patch.setattr(module, "find_device", lambda: None)
        lines: list[str] = []
        build_engines(request(directory), lines.append)
    assert [line.partition(" MB")[0].rstrip("0123456789") for line in lines] == [
        "vision_encoder_fp16.engine: building (there is none yet)",
        "text_decoder_fp16.engine: building (there is none yet)",
        "vision_encoder_fp16.engine: ",
        "text_decoder_fp16.engine: ",
    ]
    return directory


@pytest.fixture
def model(built: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    copy = tmp_path / "model"
    shutil.copytree(built, copy)
    return copy


def request(model: Path, **changes: Any) -> BuildRequest:
    precisions = {VISION: "fp16", TEXT: "fp16"}
    made = BuildRequest(model, model, precisions, Sizes(2, 64), target=(8, 9))
    return replace(made, **changes)


def reasons(asked: BuildRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns what a build says about both engines. Nothing is built."""
    monkeypatch.setattr(build, "_build", lambda *arguments: None)
    lines: list[str] = []
    build_engines(asked, lines.append)
    return lines


def test_engines_and_sidecars_have_the_documented_names(built: Path) -> None:
    assert sorted(file.name for file in built.iterdir() if file.is_file()) == [
        "text_decoder_fp16.engine", "text_decoder_fp16.engine.json",
        "vision_encoder_fp16.engine", "vision_encoder_fp16.engine.json",
    ]  # fmt: skip
    sidecar = EngineSidecar.read(built / "text_decoder_fp16.engine")
    assert sidecar.check_file(built / sidecar.file) == []
    assert sidecar.check_weights(built) == sidecar.check_graph(ModelConfig.from_directory(built)) == []
    assert (sidecar.flavour, sidecar.compute_capabilities, sidecar.precision_built) == (
        "tensorrt_rtx", ("8.9",), "fp16"
    )  # fmt: skip
    assert (sidecar.max_prompt, sidecar.max_context, sidecar.max_tiles, sidecar.calibration) == (64, 64, 0, "")
    assert (sidecar.weights_sha256, sidecar.compiled) == ("", False)
    assert EngineSidecar.read(built / "vision_encoder_fp16.engine").max_tiles == 2


@pytest.mark.parametrize("part", PARTS)
def test_every_foreseen_plan_is_in_the_file_and_no_weights(part: str, built: Path) -> None:
    file = built / f"{part}_fp16.engine"
    archive = PlanArchive.open(file)
    keys = foreseen(part, Sizes(2, 64), ModelConfig.from_directory(built), "fp16")
    assert tuple(archive.keys) == keys
    assert EngineSidecar.read(file).plans == tuple(map(str, keys))
    assert archive.graphs.keys() == {*(key.block for key in keys), "attention"}
    assert all(archive.plan(key) and not archive.kernels(key) for key in keys)
    assert not archive.packed


def test_building_needs_no_torch(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (x86-64 only)")
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from litevlm_ros.tools.build_engines import main\n"
        f"sys.exit(main(['--model', {str(DEMO_MODEL)!r}, '--output', {str(tmp_path)!r}, '--target-sm', '80',"
        " '--precision', 'bf16', '--max-tiles', '1', '--max-context', '8']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert PlanArchive.open(tmp_path / "text_decoder_bf16.engine").precision == "bf16"


def test_what_is_up_to_date_stays(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reasons(request(model), monkeypatch) == [
        "vision_encoder_fp16.engine: up to date", "text_decoder_fp16.engine: up to date"
    ]  # fmt: skip


def test_other_weights_of_the_same_shapes_fit(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model / TEXT / "model.safetensors").write_bytes(b"other weights")
    assert all("up to date" in line for line in reasons(request(model), monkeypatch))


def test_every_reason_to_build_again_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(**values: Any) -> None:
        file = sidecar_file(model / "text_decoder_fp16.engine")
        file.write_text(json.dumps({**json.loads(file.read_text()), "sha256": None, **values}))

    original = sidecar_file(model / "text_decoder_fp16.engine").read_text()
    for values, reason in (
        ({"version": "0.9"}, "it was built by version 0.9 and TensorRT-RTX 1.4"),
        ({"compute_capabilities": ["8.6"]}, "it was built for compute capability 8.6, not 8.9"),
        ({"weights_sha256": "0"}, "the weights have changed"),
        ({"graph_sha256": "0"}, "this version draws another graph"),
        ({"plans": ["mlp-1"]}, "this version builds it with other plans"),
        ({"max_prompt": 8}, "another max_tiles or max_context"),
        ({"engine_sha256": "0"}, "is not the engine that was built"),
        ({"format": 99}, "cannot be used"),
    ):
        change(**values)
        vision, text = reasons(request(model), monkeypatch)
        assert vision == "vision_encoder_fp16.engine: up to date"
        assert text.startswith("text_decoder_fp16.engine: building (")
        assert reason in text
        sidecar_file(model / "text_decoder_fp16.engine").write_text(original)
    assert all("another max_tiles" in line for line in reasons(request(model, sizes=Sizes(4, 80)), monkeypatch))
    assert all("building (--force)" in line for line in reasons(request(model, force=True), monkeypatch))
    (model / "text_decoder_fp16.engine").unlink()
    assert "there is none yet" in reasons(request(model), monkeypatch)[1]


def test_another_config_needs_other_engines(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = model / TEXT / "config.json"
    values = json.loads(file.read_text())
    section = next(part for part in (values, *values.values()) if isinstance(part, dict) and "rms_norm_eps" in part)
    section["rms_norm_eps"] = 0.25
    file.write_text(json.dumps(values))
    vision, text = reasons(request(model), monkeypatch)
    assert "up to date" in vision
    assert "the model's config.json has changed" in text
    (reason,) = EngineSidecar.read(model / "text_decoder_fp16.engine").check_graph(
        ModelConfig.from_directory(model), model
    )
    assert f"build it again with `ros2 run litevlm_ros build_engines --model {model} --text-precision fp16" in reason


def test_what_was_kept_beside_an_older_engine_goes_with_it(model: Path) -> None:
    kept = runtime_cache_directory(model / "vision_encoder_fp16.engine")
    kept.mkdir()
    (kept / "mlp-99.plan").write_bytes(b"old")
    build_engines(request(model, precisions={VISION: "fp16"}, force=True), lambda line: None)
    assert not kept.exists()


def test_packed_weights_are_stored_and_their_hash_is_kept(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="packs weights with PyTorch")
    lines: list[str] = []
    build_engines(request(model, precisions={VISION: "fp8"}), lines.append)
    assert lines[:2] == [
        "vision_encoder_fp8.engine: building (there is none yet)",
        "vision_encoder_fp8.engine: FP8 storage, FP16 arithmetic",
    ]
    archive = PlanArchive.open(model / "vision_encoder_fp8.engine")
    outputs, _ = archive.packed["layers.0.qkv.weight.fp8"].shape
    assert archive.packed["layers.0.qkv.weight.fp8"].dtype == "U8"
    assert archive.packed["layers.0.qkv.weight.scale"].shape == (outputs,)
    sidecar = EngineSidecar.read(archive.file)
    assert sidecar.weights_sha256
    assert sidecar.check_weights(model) == []
    (model / VISION / "model.safetensors").write_bytes(b"other weights")
    assert "was built from other weights" in sidecar.check_weights(model)[0]
    monkeypatch.undo()
    monkeypatch.setattr(target, "find_device", lambda: None)
    asked = request(model, precisions={VISION: "fp8"})
    assert "the weights have changed" in reasons(asked, monkeypatch)[0]


def test_int4_alone_is_calibrated(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="packs weights with PyTorch")
    from litevlm_ros.convert import packed_weights

    class Data:
        description = "two pictures"

    given: dict[str, Any] = {}

    def pack(part: str, directory: Path, precision: str, data: Any) -> dict[str, Any]:
        given[precision] = data and data.description
        return {}

    monkeypatch.setattr(packed_weights, "pack", pack)
    for precision in ("fp8", "int8", "int4"):
        asked = request(model, precisions={TEXT: precision}, calibration=Data, sizes=Sizes(1, 2))
        build_engines(asked, lambda line: None)
    assert given == {"fp8": None, "int8": None, "int4": "two pictures"}
    assert EngineSidecar.read(model / "text_decoder_int4.engine").calibration == "two pictures"
    assert "calibration images were given" in reasons(
        request(model, precisions={TEXT: "int4"}, sizes=Sizes(1, 2), recalibrate=True), monkeypatch
    )[0]  # fmt: skip


@pytest.mark.parametrize(("form", "reason"), [("channel", "up to date"), ("tensor", "one scale for a whole matrix")])
def test_fp8_engines_of_earlier_versions_stay_if_their_scales_are_the_same(
    form: str, reason: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their sidecars name the form of FP8's scales."""
    pytest.importorskip("torch", reason="packs weights with PyTorch")
    asked = request(model, precisions={VISION: "fp8"}, sizes=Sizes(1, 2))
    build_engines(asked, lambda line: None)
    file = sidecar_file(model / "vision_encoder_fp8.engine")
    file.write_text(json.dumps({**json.loads(file.read_text()), "sha256": None, "fp8_form": form}))
    assert reason in reasons(asked, monkeypatch)[0]


def test_a_full_disk_leaves_neither_half_an_engine_nor_a_sidecar(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"vision_encoder_fp16\.engine cannot be written \(No space left on device\)"):
        build_engines(request(model, precisions={VISION: "fp16"}, force=True), lambda line: None)
    assert not sidecar_file(model / "vision_encoder_fp16.engine").exists()
    assert not list(model.glob("*.part"))


def test_a_gpu_without_bf16_gets_fp16_and_strict_refuses(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(model, precisions={TEXT: "bf16"}, target=(7, 5))
    assert reasons(asked, monkeypatch)[0].startswith(
        "text_decoder: bf16 was asked for, fp16 is built, because a GPU of compute capability 7.5 has no BF16"
    )
    with pytest.raises(ConfigError, match="cannot be built in bf16"):
        build_engines(replace(asked, strict=True), lambda line: None)


def test_an_orins_engines_are_left_to_an_orin(model: Path) -> None:
    with pytest.raises(ConfigError, match="engines are built on a Jetson"):
        build_engines(request(model, precisions={VISION: "fp8", TEXT: "fp8"}, target=(8, 7)), lambda line: None)


def test_too_little_memory_is_said_before_the_build(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "build_memory", lambda packed, calibrated: 1 << 60)
    with pytest.raises(EngineError, match="add swap"):
        build_engines(request(model, force=True), lambda line: None)


def test_the_memory_check_knows_what_is_packed_and_what_is_calibrated(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vision, text = (weight_bytes(model / part) for part in PARTS)
    asked: list[tuple[int, int]] = []

    def build_memory(packed: int, calibrated: int) -> int:
        asked.append((packed, calibrated))
        return 1 << 60

    monkeypatch.setattr(build, "build_memory", build_memory)
    for precisions, expected in (
        ({VISION: "fp16", TEXT: "fp16"}, (0, 0)),
        ({VISION: "fp8", TEXT: "fp16"}, (vision, 0)),
        ({VISION: "fp8", TEXT: "int8"}, (max(vision, text), 0)),
        ({VISION: "int4", TEXT: "fp8"}, (max(vision, text), vision)),
        ({TEXT: "int4"}, (text, max(vision, text))),
    ):
        with pytest.raises(EngineError, match="add swap"):
            build_engines(request(model, precisions=precisions, calibration=lambda: None, force=True), print)
        assert asked.pop() == expected, precisions
    with pytest.raises(EngineError, match="add swap"):
        build_engines(request(model, precisions={TEXT: "int4"}, force=True), print)
    assert asked == [(text, 0)], "without pictures nothing is calibrated"


# --- kernels, with a GPU that compiles nothing


class Compiler:
    """Kernels that are there at once, or fail."""

    def __init__(self, fails: bool) -> None:
        self._fails = fails
        self.names: list[str] = []

    def submit(self, name: str, plan: bytes) -> Future[bytes]:
        self.names.append(name)
        future: Future[bytes] = Future()
        if self._fails:
            future.set_exception(EngineError(f"TensorRT does not compile kernels of {name}"))
        else:
            future.set_result(b"kernels of " + plan[:4])
        return future


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (build, target):
        monkeypatch.setattr(module, "find_device", lambda: Device("Ada", (8, 9), 1 << 36, False))
    # TensorRT-RTX itself finds no GPU to be the current one.
    monkeypatch.setattr(build, "find_target", lambda asked: target.Target((8, 9), "SM89"))
    monkeypatch.setattr(target.Target, "is_here", property(lambda self: True))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == "pycuda" else find(name))


def compiler(monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> Compiler:
    made = Compiler(fails)

    @contextmanager
    def start(workers: int) -> Any:
        assert workers >= 1
        yield made

    monkeypatch.setattr(build, "kernel_compiler", start)
    return made


@pytest.mark.usefixtures("gpu")
def test_where_the_gpu_is_kernels_are_compiled_for_both_parts_at_once(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = compiler(monkeypatch)
    lines: list[str] = []
    build_engines(request(model), lines.append)
    assert lines[0] == "vision_encoder_fp16.engine: building (its kernels are not compiled yet)"
    assert made.names[0] == "vision_encoder_fp16.engine's plan projector-514"
    assert made.names[-1] == "text_decoder_fp16.engine's plan qkv-1"
    for part in PARTS:
        archive = PlanArchive.open(model / f"{part}_fp16.engine")
        assert all(archive.kernels(key) == b"kernels of " + archive.plan(key)[:4] for key in archive.keys)
        assert EngineSidecar.read(archive.file).compiled
    build_engines(request(model), lines.append)
    assert lines[-1] == "text_decoder_fp16.engine: up to date"


@pytest.mark.usefixtures("gpu")
def test_a_plan_that_does_not_compile_fails_the_build(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler(monkeypatch, fails=True)
    with pytest.raises(EngineError, match=r"kernels of vision_encoder_fp16\.engine's plan "):
        build_engines(request(model), lambda line: None)


@pytest.mark.usefixtures("gpu")
def test_without_pycuda_kernels_are_left_to_the_node(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    lines: list[str] = []
    build_engines(request(model), lines.append)
    assert "-m pip install pycuda" in lines[0]
    assert lines[1] == "vision_encoder_fp16.engine: up to date"
