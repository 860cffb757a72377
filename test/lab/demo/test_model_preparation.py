from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="a model is converted with torch")
pytest.importorskip("onnxscript", reason="a model is exported with onnxscript")

from tiny_checkpoint import write_checkpoint

from litevlm_ros.lab.demo.model_plan import ModelPlan, make_plan
from litevlm_ros.lab.demo.model_preparation import prepare
from litevlm_ros.lab.demo.wanted_model import find_wanted


def plan_for(checkpoint: Path) -> ModelPlan:
    return make_plan(find_wanted(str(checkpoint), checkpoint.parent / "models"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_step_is_kept_and_only_what_is_left_is_done(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "mine")
    lines: list[str] = []

    def end_after_the_first_graph(line: str) -> None:
        lines.append(line)
        if line.startswith("vision_encoder_int8.onnx: "):
            raise KeyboardInterrupt

    first = plan_for(checkpoint)
    assert [step.name for step in first.steps] == ["split", "export"]
    with pytest.raises(KeyboardInterrupt):
        prepare(first, end_after_the_first_graph)
    second = plan_for(checkpoint)
    assert [step.name for step in second.steps] == ["export"]
    prepare(second, lines.append)
    assert "vision_encoder_int8.onnx: reused" in lines
    assert sum(line.startswith("vision_encoder_int8.onnx: ") for line in lines) == 2
    assert plan_for(checkpoint).is_ready

    graph = second.wanted.directory / "text_decoder_int8.onnx"
    made = graph.stat().st_mtime_ns
    later = time.time() + 60
    os.utime(checkpoint / "model.safetensors", (later, later))
    changed = plan_for(checkpoint)
    assert [step.name for step in changed.steps] == ["split", "export"]
    lines.clear()
    prepare(changed, lines.append)
    assert any("has changed since" in line for line in lines)
    assert graph.stat().st_mtime_ns > made
