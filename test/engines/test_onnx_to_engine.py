"""Real engines, built by TensorRT-RTX, which needs no GPU for fp16."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (x86-64 only)")

from litevlm_ros.engines import onnx_to_engine as builder
from litevlm_ros.engines.onnx_to_engine import Target, build_engine, check_precision, find_target, progress_monitor
from litevlm_ros.engines.sidecar import Profile
from litevlm_ros.errors import ConfigError, EngineError
from litevlm_ros.machine import Device

ADA = Target((8, 9), "SM89")
SIZES = Profile("any", {"x": (1, 4, 9)})


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "find_device", lambda: None)


def graph(file: Path, operator: str = "MatMul") -> Path:
    weight = numpy_helper.from_array(np.eye(64, dtype=np.float16), "weight")
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["S", 64]) for name in "xy"]
    nodes = [helper.make_node(operator, ["x", "weight"], ["y"])]
    made = helper.make_graph(nodes, "one", shapes[:1], shapes[1:], [weight])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file


def test_an_engine_is_built_for_another_gpu(tmp_path: Path, no_gpu: None) -> None:
    built = build_engine(graph(tmp_path / "g.onnx"), [SIZES], ADA, workspace_mib=64, quiet=True)
    assert len(memoryview(built.contents)) > 64 * 64 * 2
    assert built.activation_bytes == 0, "known where there is a GPU to load it"


def test_what_tensorrt_does_not_read_is_said_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"does not read g\.onnx: .*NoSuchOperator"):
        build_engine(graph(tmp_path / "g.onnx", "NoSuchOperator"), [SIZES], ADA, quiet=True)


def test_impossible_sizes_are_said(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"g\.onnx|profile any"):
        build_engine(graph(tmp_path / "g.onnx"), [Profile("any", {"x": (9, 4, 1)})], ADA, quiet=True)


def test_an_interrupt_stops_the_build_and_waits_for_its_end() -> None:
    stopped, ended = threading.Event(), threading.Event()

    def work() -> None:
        time.sleep(1)  # until the main thread waits
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # as the terminal does
        assert stopped.wait(30)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        builder._interruptible(work, stopped.set)
    assert ended.is_set()
    assert builder._interruptible(lambda: 7, stopped.set) == 7


def test_the_target_is_the_gpu_at_hand_or_the_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "find_device", lambda: Device("H100", (9, 0), 1 << 36, False))
    assert find_target(None) == find_target((9, 0)) == Target((9, 0), "CURRENT")
    assert find_target((8, 9)) == ADA


def test_without_a_gpu_a_target_must_be_named(no_gpu: None) -> None:
    with pytest.raises(ConfigError, match=r"no NVIDIA GPU here.*--target-sm"):
        find_target(None)
    assert find_target((8, 9)) == ADA


def test_a_jetsons_engines_are_built_on_a_jetson(no_gpu: None) -> None:
    with pytest.raises(ConfigError, match=r"target-sm is 8\.7.*builds for .*8\.9.*built on a Jetson"):
        find_target((8, 7))


def test_jetpacks_tensorrt_builds_only_for_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from litevlm_ros.engines.tensorrt_module import TensorRT

    monkeypatch.setattr(builder, "load_tensorrt", lambda: TensorRT(None, "tensorrt", "10.3.0"))
    monkeypatch.setattr(builder, "find_device", lambda: Device("Orin", (8, 7), 1 << 33, True))
    assert find_target(None) == Target((8, 7))
    with pytest.raises(ConfigError, match=r"target-sm is 8\.9 and the GPU here is 8\.7; TensorRT 10\.3\.0 builds only"):
        find_target((8, 9))


def test_quantized_engines_need_a_gpu_to_build(no_gpu: None) -> None:
    check_precision("fp16")
    with pytest.raises(ConfigError, match=r"precision is fp8; without a GPU, TensorRT-RTX .* builds fp16 only"):
        check_precision("fp8")


# --- progress


class Bar:
    """A progress bar in place of tqdm's, which notes how it is used."""

    made: list[Bar] = []  # noqa: RUF012

    def __init__(self, total: int, desc: str, position: int, leave: bool, disable: bool | None) -> None:
        self.total, self.desc, self.position, self.disable = total, desc, position, disable
        self.n, self.closed = 0, False
        self.made.append(self)

    def update(self, steps: int) -> None:
        self.n += steps

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    monkeypatch.setattr("tqdm.tqdm", Bar)
    Bar.made = []
    return Bar.made


def test_each_phase_is_a_bar_below_the_one_it_is_part_of(bars: list[Bar]) -> None:
    monitor = progress_monitor()
    monitor.phase_start("Building", None, 4)
    monitor.phase_start("Tactics", "Building", 10)
    assert monitor.step_complete("Tactics", 6)
    assert monitor.step_complete("Building", 0)
    monitor.phase_finish("Tactics")
    assert [(bar.desc, bar.position, bar.n, bar.closed) for bar in bars] == [
        ("Building", 0, 1, False),
        ("  Tactics", 1, 7, True),
    ]
    assert bars[0].disable is None, "tqdm itself leaves bars out where there is no terminal"


def test_a_stopped_build_is_told_to_end_and_leaves_no_bar(bars: list[Bar]) -> None:
    monitor = progress_monitor(quiet=True)
    monitor.phase_start("Building", None, 4)
    monitor.stop()
    assert not monitor.step_complete("Building", 1)
    assert all(bar.closed and bar.disable for bar in bars)


@pytest.mark.usefixtures("bars")
def test_unknown_phases_do_no_harm() -> None:
    monitor = progress_monitor()
    assert monitor.step_complete("never started", 1)
    monitor.phase_finish("never started")
