from __future__ import annotations

import json
from pathlib import Path

import pytest
from drivelm_example import write_example

from litevlm_ros.config import PipelineConfig
from litevlm_ros.lab.benchmarking import comparison
from litevlm_ros.lab.evaluation.drivelm_objects import TRAINED_HINT, Wording
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
        (["--drivelm", "a.json"], "--drivelm FILE asks about the pictures in --images DIR; give both"),
        (["--images", "."], "--drivelm FILE asks about the pictures in --images DIR; give both"),
        (["--drivelm", "a.json", "--images", ".", "--table"], "--drivelm is an evaluation of its own"),
        (["--drivelm", "a.json", "--images", ".", "--object-form", "stitched"], "give --stitch-views with it"),
        (["--object-form", "source"], "--object-form and --drivelm-hint say how to ask --drivelm FILE; give that"),
        (["--drivelm-hint", "Be brief."], "--object-form and --drivelm-hint say how to ask --drivelm FILE; give that"),
        (["--drivelm", "nowhere.json", "--images", "."], "--drivelm: cannot read nowhere.json"),
        (["--drivelm", "a", "--images", ".", "--drivelm-questions", "-1"], "--drivelm-questions is -1; allowed: from"),
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


def test_drivelm_is_scored_with_all_views_and_with_chosen_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime", reason="runs the demo model: pip install 'litevlm_ros[onnxruntime]'")
    example, file = write_example(tmp_path), tmp_path / "report.json"
    arguments = ["--drivelm", str(example.file), "--images", str(example.images), "--threads", "1"]
    assert main([*arguments, "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    whole, chosen = report["runs"]["all_views"], report["runs"]["chosen_views"]
    assert (report["key_frames"], report["questions"], whole["accuracy_all"]["of"]) == (3, 36, 30)
    for run in (whole, chosen):
        assert 0.5 < run["accuracy_all"]["share"] < run["accuracy"]["share"] < 1, "it never learned to write letters"
        assert run["match"] == {"f1": 0, "of": 3}, "nor coordinates"
    assert chosen["means"]["views"] < 4 < whole["means"]["views"]
    assert chosen["means"]["visual_tokens"] < whole["means"]["visual_tokens"]
    assert chosen["means"]["vision"] < whole["means"]["vision"]
    printed = capsys.readouterr().out
    assert f"| all views | {100 * whole['accuracy']['share']:.1f} (" in printed
    assert "Left out of the challenge's scores: ChatGPT's" in printed


def test_drivelm_asks_as_few_questions_as_wanted_and_tells_what_it_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime", reason="runs the demo model: pip install 'litevlm_ros[onnxruntime]'")
    example = write_example(tmp_path)
    next(example.images.rglob("*CAM_BACK__*2.jpg")).unlink()
    arguments = ["--drivelm", str(example.file), "--images", str(example.images), "--threads", "1", "--stitch-views"]
    assert main([*arguments, "--drivelm-questions", "14"]) == 0
    printed = capsys.readouterr()
    assert "14 questions about 2 key frames of test_eval.json" in printed.out
    assert "objects in the stitched form" in printed.out
    line = "Left out, key frames without all of their pictures: 1 (the first: ../nuscenes/samples/CAM_BACK/"
    assert line in printed.out
    assert line in printed.err, "also before minutes of work"


@pytest.mark.parametrize(
    ("arguments", "form"),
    [
        ([], "source"),
        (["--stitch-views"], "stitched"),
        (["--stitch-views", "--object-form", "source"], "source"),
        (["--stitch-views", "--object-form", "stitched"], "stitched"),
    ],
)
def test_the_form_of_objects_follows_from_the_picture_unless_it_is_named(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], form: str
) -> None:
    wordings: list[Wording] = []

    def report(config: object, data: object, selection: str, wording: Wording, notify: object) -> tuple[str, dict]:
        wordings.append(wording)
        return "", {}

    monkeypatch.setattr(evaluate, "report_drivelm", report)
    asked = ["--drivelm", "a.json", "--images", ".", *arguments]
    assert main([*asked, "--drivelm-hint", "Be brief."]) == 0
    assert main(asked) == 0
    assert wordings == [Wording(form, "Be brief."), Wording(form, TRAINED_HINT if form == "stitched" else "")]


def test_drivelm_without_one_readable_picture_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="runs the demo model: pip install 'litevlm_ros[onnxruntime]'")
    example = write_example(tmp_path)
    for picture in example.images.rglob("*.jpg"):
        picture.write_bytes(b"no picture")
    assert main(["--drivelm", str(example.file), "--images", str(example.images), "--threads", "1"]) == 1
    assert f"--images: no picture in {example.images} can be read" in capsys.readouterr().err
