from __future__ import annotations

import json
from pathlib import Path

import pytest

from litevlm_ros.tools.evaluate import main


def test_the_model_that_ships_sees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="runs the demo model: pip install 'litevlm_ros[onnxruntime]'")
    file = tmp_path / "new" / "evaluation.json"
    assert main(["--scenes", "4", "--threads", "1", "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    blind, majority = report["baselines"]["blind"], report["baselines"]["majority"]
    assert (report["questions"], report["captions"]) == (80, 8)
    assert report["answer_accuracy"] > 0.85 > 0.6 > max(blind["answer_accuracy"], majority["answer_accuracy"])
    assert report["caption_truth"] > 0.85 > 0.6 > max(blind["caption_truth"], majority["caption_truth"])
    assert all(ms > 0 for ms in report["mean_ms"].values())
    assert "ONNX Runtime" in report["backend"]
    printed = capsys.readouterr().out
    assert report["machine"]["cpu"] in printed
    assert report["model"] in printed
    assert f"{100 * report['answer_accuracy']:.1f}" in printed


def test_a_file_that_cannot_be_written_is_explained_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", str(tmp_path)]) == 1
    assert f"--json: cannot write {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenes", "0"], "scenes is 0; allowed: from 1"),
        (["--seed", "-3"], "seed is -3"),
        (["--threads", "-1"], "threads is -1"),
        (["--model", "nowhere"], "nowhere"),
        (["--table", "--questions", "0"], "--latency-questions is 130; allowed: from 0 to --questions (0)"),
        (["--table", "--keep", "7"], "token_selection_keep is 7"),
        (["--table", "--fp8", "fp8"], "--fp8 has 'fp8'; allowed: VISION/TEXT"),
        (["--table", "--accuracy-from", "nowhere.json"], "--accuracy-from: cannot read nowhere.json"),
        (["--token-selection", "magic"], "token_selection is 'magic'; allowed: off, random"),
        (["--token-selection", "random", "--token-budgets", "half"], "--token-budgets is 'half'"),
        (["--token-selection", "random", "--token-budgets", "0.5,2"], "token_selection_keep is 2.0"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
