from __future__ import annotations

import json
from pathlib import Path

import pytest

from litevlm_ros.config import PipelineConfig
from litevlm_ros.lab.benchmarking import comparison
from litevlm_ros.tools import evaluate
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
        (["--fresh"], "--fresh measures again what the file of --table --json FILE has"),
        (["--table", "--fresh"], "--fresh measures again what the file of --table --json FILE has"),
        (["--compare-transformers"], "--compare-transformers adds a row of times to --table"),
        (["--table", "--compare-transformers", "--latency-questions", "0"], "give that, and some --latency-questions"),
        (["--table", "--json", "/dev/null"], "--json: /dev/null is no regular file"),
        (["--token-selection", "magic"], "token_selection is 'magic'; allowed: off, random"),
        (["--token-selection", "random", "--token-budgets", "half"], "--token-budgets is 'half'"),
        (["--token-selection", "random", "--token-budgets", "0.5,2"], "token_selection_keep is 2.0"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_a_table_that_was_interrupted_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="runs the demo model: pip install 'litevlm_ros[onnxruntime]'")
    file = tmp_path / "table.json"
    arguments = ["--table", "--threads", "1", "--questions", "1", "--latency-questions", "0", "--fp8", "auto/auto"]
    arguments += ["--json", str(file)]

    def interrupt(line: str) -> None:
        if line.startswith("accuracy: + token selection"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "note", interrupt)
        assert main(arguments) == 130
    assert f"the rows that were measured are in {file}" in capsys.readouterr().err
    assert list(json.loads(file.read_text())["accuracy"]["rows"]) == ["base", "view_selection"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "accuracy: base, view_selection measured before" in printed.err
    assert "accuracy: base\n" not in printed.err
    assert "| all + FP8 (vision auto, text auto) | " in printed.out
    assert main([*arguments, "--seed", "1"]) == 1
    assert "Add --fresh" in capsys.readouterr().err
    assert main([*arguments, "--seed", "1", "--fresh"]) == 0


def test_without_a_file_a_table_says_that_it_cannot_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--table", "--questions", "0", "--latency-questions", "0"]) == 1
    assert "without --json FILE, a run that is interrupted starts from the beginning" in capsys.readouterr().err


def test_transformers_needs_a_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="the option needs PyTorch")
    monkeypatch.setattr(comparison, "find_device", lambda: None)
    assert main(["--table", "--compare-transformers"]) == 1
    assert "needs an NVIDIA GPU" in capsys.readouterr().err


def test_the_choice_of_decode_steps_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[PipelineConfig] = []

    def report(config: PipelineConfig, *others: object) -> tuple[str, dict[str, object]]:
        configs.append(config)
        return "", {}

    monkeypatch.setattr(evaluate, "report_precisions", report)
    assert main(["--precisions", "fp16", "--decode", "kernels"]) == 0
    assert [config.decode for config in configs] == ["kernels"]
