from __future__ import annotations

from pathlib import Path

import pytest

from litevlm_ros.tools.train_view_selector import main
from litevlm_ros.vision.learned_view_selection import LearnedSelector
from litevlm_ros.vision.view_selection import LexicalSelector


def test_it_writes_a_graph_that_can_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="runs the graph")
    file = tmp_path / "new" / "view_selector.onnx"
    assert main(["--output", str(file), "--scenes", "5", "--steps", "2"]) == 0
    printed = capsys.readouterr().out
    assert "step 2: loss" in printed
    assert f"{file}: " in printed
    assert LearnedSelector(file, LexicalSelector()).select("Is there a car around us?", ("front", "back"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps is 0; allowed: from 1"),
        (["--threads", "-1"], "--threads is -1; allowed: from 1"),
        (["--scenes", "10", "--seed", "-2"], "--scenes is 10 and --seed -2; allowed: "),
    ],
)
def test_mistakes_are_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
