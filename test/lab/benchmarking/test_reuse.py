from __future__ import annotations

import json
from pathlib import Path

import pytest

from litevlm_ros.lab.benchmarking.reuse import time_gate
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.tools.benchmark import main


def test_a_further_question_pays_for_its_own_tokens_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "reuse.json"
    arguments = ["--reuse", "--views", "2", "--runs", "3", "--resolution", "320x240", "--json", str(file)]
    model = ["--model", str(demo_model_directory()), "--backend", "onnxruntime", "--threads", "1"]
    assert main([*model, *arguments]) == 0
    report = json.loads(file.read_text())
    assert report["first"]["vision"]["least"] > 0
    assert report["reused_views"] == 2
    assert 128 < report["reused_tokens"] < report["tokens"]
    assert report["different"] == 0
    printed = capsys.readouterr().out
    assert "0 further answers differ" in printed
    assert "frame-change gate" in printed


def test_the_gate_is_timed_for_each_run() -> None:
    gate = time_gate((64, 48), runs=3)
    assert 0 < gate.least <= gate.median <= gate.most
