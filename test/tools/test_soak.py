from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")
pytest.importorskip("onnxruntime", reason="runs the demo model")

from litevlm_ros.tools.soak import main


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_short_soak(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # The node may start slowly beside other tests.
    monkeypatch.setattr("litevlm_ros.lab.benchmarking.soak._START_SECONDS", 180.0)
    # Whether latency drifts within seconds on a busy machine is not asked here.
    assert main(["--minutes", "0.1", "--rate", "3", "--ask-every", "0.2", "--output", str(tmp_path)]) in (0, 1)
    record = json.loads((tmp_path / "soak.json").read_text())
    assert len(record["usage"]) >= 4
    assert record["captions"]
    assert record["answers"]
    assert record["failures"] == {}
    assert record["figures"]["memory_mb"] > 20
    assert any("images received" in line for line in record["node_log"])
    assert (tmp_path / "soak.png").stat().st_size > 10_000
    assert "node's memory" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--minutes", "--rate", "--ask-every"])
def test_settings_that_cannot_work(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag, "0", "--output", str(tmp_path)]) == 2
    assert f"{flag} is 0; allowed: above 0" in capsys.readouterr().err


def test_a_model_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "/nowhere", "--output", str(tmp_path)]) == 2
    assert "/nowhere" in capsys.readouterr().err
