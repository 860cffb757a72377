from __future__ import annotations

import pytest

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (x86-64 only)")

from litevlm_ros.engines import target
from litevlm_ros.engines.target import Target, find_target
from litevlm_ros.engines.tensorrt_module import TensorRT
from litevlm_ros.errors import ConfigError
from litevlm_ros.machine import Device

ADA = Target((8, 9), "SM89")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "find_device", lambda: None)


def test_the_target_is_the_gpu_at_hand_or_the_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "find_device", lambda: Device("H100", (9, 0), 1 << 36, False))
    assert find_target(None) == find_target((9, 0)) == Target((9, 0), "CURRENT")
    assert find_target((8, 9)) == ADA
    assert (find_target(None).is_here, ADA.is_here) == (True, False)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_a_target_must_be_named() -> None:
    with pytest.raises(ConfigError, match=r"no NVIDIA GPU here.*--target-sm"):
        find_target(None)
    assert find_target((8, 9)) == ADA


@pytest.mark.usefixtures("no_gpu")
def test_a_jetsons_engines_are_built_on_a_jetson() -> None:
    with pytest.raises(ConfigError, match=r"target-sm is 8\.7.*builds for .*8\.9.*built on a Jetson"):
        find_target((8, 7))


def test_jetpacks_tensorrt_builds_only_for_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "load_tensorrt", lambda: TensorRT(None, "tensorrt", "10.3.0"))
    monkeypatch.setattr(target, "find_device", lambda: Device("Orin", (8, 7), 1 << 33, True))
    assert find_target(None) == Target((8, 7))
    assert find_target(None).is_here
    with pytest.raises(ConfigError, match=r"target-sm is 8\.9 and the GPU here is 8\.7; TensorRT 10\.3\.0 builds only"):
        find_target((8, 9))
