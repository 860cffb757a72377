from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_internvl import model_directory

from litevlm_ros.tools.benchmark import Statistics, camera_image, main


def test_it_reports_every_stage_and_names_the_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "benchmark.json"
    arguments = ["--views", "2", "--runs", "3", "--tokens", "5", "--resolution", "64x48", "--json", str(file)]
    assert main(["--model", str(model_directory()), *arguments]) == 0
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


def test_statistics() -> None:
    assert Statistics.of([3, 1, 2, 10]) == Statistics(median=2.5, least=1, most=10)


def test_images_are_the_same_each_time_and_differ_by_view() -> None:
    first, again, other = camera_image(0, 64, 48), camera_image(0, 64, 48), camera_image(1, 64, 48)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (48, 64, 3)
    assert (first != other).any(-1).mean() > 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--views", "7"], "--views is 7; allowed: from 1 to 6"),
        (["--runs", "0"], "--runs is 0; allowed: from 1"),
        (["--threads", "-1"], "threads is -1"),
        (["--model", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_an_unreadable_resolution_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--resolution", "720p"])
    assert "'720p' is not WIDTHxHEIGHT" in capsys.readouterr().err
