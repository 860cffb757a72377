from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_internvl import model_directory

from litevlm_ros.config import PipelineConfig
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.tools import benchmark
from litevlm_ros.tools.benchmark import main


def test_it_reports_every_stage_and_names_the_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "benchmark.json"
    arguments = ["--views", "2", "--runs", "3", "--tokens", "5", "--resolution", "64x48"]
    assert main(["--model", str(model_directory()), "--threads", "1", *arguments, "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    results = report["results"]
    assert report["work"] == {"views": 2, "resolution": [64, 48], "max_tiles": 1, "tokens": 5, "runs": 3}
    assert "ONNX Runtime" in report["backend"]
    assert report["machine"]["cpu"]
    assert report["machine"]["cores"] >= 1
    assert results["visual_tokens"]["median"] == 8
    for name in ("preprocess", "vision", "prefill", "decode_token", "total", "caption"):
        assert 0 < results[name]["least"] <= results[name]["median"] <= results[name]["most"]
    stages = sum(results[name]["least"] for name in ("preprocess", "vision", "prefill"))
    assert stages + 4 * results["decode_token"]["least"] <= results["total"]["most"]
    printed = capsys.readouterr().out
    assert report["machine"]["cpu"] in printed
    assert f"{results['decode_token']['median']:.2f}" in printed


def test_speculation_is_priced_and_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "speculation.json"
    arguments = ["--speculation", "--threads", "1", "--runs", "1", "--context", "100", "--json", str(file)]
    assert main(["--model", str(demo_model_directory()), "--backend", "onnxruntime", *arguments]) == 0
    report = json.loads(file.read_text())
    assert [cost["tokens"] for cost in report["verifications"]] == [2, 4, 8, 16]
    for work, answers in (("captions", 4), ("captions of still scenes", 4), ("short answers", 20)):
        assert list(report[work]) == ["off", "ngram", "head", "auto"]
        for source, rates in report[work].items():
            assert (rates["answers"], rates["different"]) == (answers, 0)
            assert source != "off" or rates["drafted"] == 0
    assert any(rates["drafted"] for rates in report["captions of still scenes"].values())
    printed = capsys.readouterr().out
    assert "plain step" in printed
    assert "4 captions of" in printed
    assert "no draft head" not in printed


def test_boards_are_estimated_beside_what_is_expected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "estimates.json"
    assert main(["--model", str(model_directory()), "--project", "all", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("ESTIMATES for boards on which nothing was measured.")
    assert "An Orin computes with all of them in FP16." in printed
    rows = json.loads(file.read_text())["estimates"]
    assert {row["board"]: row["expected_ms"] for row in rows} == {
        "Jetson AGX Orin 32GB": 45, "Jetson Orin NX 16GB": 68, "Jetson Orin Nano 8GB": 95,
    }  # fmt: skip
    assert main(["--model", str(model_directory()), "--project", "orin_nx", "--views", "2"]) == 0
    printed = capsys.readouterr().out
    assert "Work: 2 new views" in printed
    assert "Orin NX" in printed
    assert "Orin Nano" not in printed


def test_kernels_are_listed_with_what_they_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="compiles kernels: pip install cuda-bindings nvidia-cuda-nvrtc")
    file = tmp_path / "resources.json"
    assert main(["--model", str(model_directory()), "--kernel-resources", "87", "--json", str(file)]) == 0
    assert "text.cu embed bf16" in capsys.readouterr().out
    report = json.loads(file.read_text())
    assert report["compute_capability"] == "8.7"
    assert all(kernel["registers"] for kernel in report["kernels"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--views", "7"], "--views is 7; allowed: from 1 to 6"),
        (["--runs", "0"], "--runs is 0; allowed: from 1"),
        (["--context", "0"], "--context is 0; allowed: from 1"),
        (["--threads", "-1"], "threads is -1"),
        (["--model", "nowhere"], "nowhere"),
        (["--compare-transformers", "--engines", "fp16/fp9"], "--engines has 'fp16/fp9'; allowed: VISION/TEXT"),
        (["--compare-transformers", "--references", "fast"], "--references has 'fast'; allowed: eager, compiled"),
        (["--project", "all", "--model", "nowhere"], "nowhere"),
        (["--project", "all", "--measured", "none.json"], "--measured none.json is not what `benchmark"),
        (["--measured", "none.json"], "--measured is for --project alone; say --project all too"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_engines_are_timed_on_a_gpu_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("litevlm_ros.lab.benchmarking.precision_times.describe", lambda: {"gpu": ""})
    assert main(["--precisions", "fp16,fp8"]) == 1
    assert "there is no NVIDIA GPU here" in capsys.readouterr().err


def test_what_cannot_be_read_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--resolution", "720p"])
    assert "'720p' is not WIDTHxHEIGHT" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--kernel-resources", "orin"])
    assert "'orin' is not a compute capability, such as 87" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--decode", "engine"]])
def test_the_choice_of_decode_steps_is_handed_on(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[PipelineConfig] = []

    def report(config: PipelineConfig, *others: object) -> tuple[str, dict[str, object]]:
        configs.append(config)
        return "", {}

    monkeypatch.setattr(benchmark, "report_stages", report)
    assert main(["--model", str(model_directory()), *arguments]) == 0
    assert [config.decode for config in configs] == [arguments[-1] if arguments else "auto"]


def test_a_comparison_has_no_choice_of_decode_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(model_directory()), "--compare-transformers", "--decode", "engine"]) == 1
    assert "leave out --decode" in capsys.readouterr().err
