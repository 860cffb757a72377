from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from internvl2_1b import INTERNVL2_1B

from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.benchmarking.boards import MEASURED_GPUS, Rates
from litevlm_ros.lab.benchmarking.efficiency import KINDS, PUBLISHED, Share, read_efficiency
from litevlm_ros.lab.benchmarking.path_costs import path_ms, prefill_path, step_path, vision_path

_GPU = "NVIDIA H100 80GB HBM3"


def report(**changes: Any) -> dict[str, Any]:
    """Returns what `Comparison.json` has, as far as efficiencies need it."""
    stages = {
        "vision, 1 tile": 3.0, "vision, 12 tiles": 20.0, "prefill of 448 tokens": 2.0, "prefill of 1792 tokens": 4.0,
        "token behind 448 others": 1.0, "token behind 1792 others": 1.1,
    }  # fmt: skip
    way = {
        "name": "engines fp16/fp8",
        "stages": {title: {"ms": ms, "floor_ms": 0.1} for title, ms in stages.items()},
        "memory": 2_900_000_000,
        "engines": {"memory": {"text weights": 900_000_000, "plans and libraries": 300_000_000, "cuDNN": 30_000_000}},
    }
    others = {"name": "transformers, compiled", "stages": {}, "memory": 1, "engines": None}
    return {"machine": {"gpu": _GPU}, "ways": [others, way], **changes}


def test_shares_are_those_of_the_largest_stages(tmp_path: Path) -> None:
    file = tmp_path / "comparison.json"
    file.write_text(json.dumps(report()))
    found, rates = read_efficiency(file, INTERNVL2_1B), MEASURED_GPUS[_GPU]
    expected = {
        "vision": path_ms(vision_path(INTERNVL2_1B, 12), rates) / 20,
        "prefill": path_ms(prefill_path(INTERNVL2_1B, 1792, 0, "fp8"), rates) / 4,
        "decode": path_ms(step_path(INTERNVL2_1B, 1, 1792, "fp8"), rates) / 1.1,
    }
    assert found.shares == {kind: Share(share, share) for kind, share in expected.items()}
    assert f"vision {100 * expected['vision']:.0f} %" in found.source
    assert _GPU in found.source
    assert found.library_bytes == 2_900_000_000 - 900_000_000


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("{", "is not what `benchmark --compare-transformers"),
        (json.dumps({"results": {}}), "is not what `benchmark --compare-transformers"),
        (json.dumps(report(machine={"gpu": "Orin"})), "measured on 'Orin', whose data sheet is not known here"),
    ],
)
def test_other_files_are_refused(contents: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(contents)
    with pytest.raises(ConfigError, match=message):
        read_efficiency(file, INTERNVL2_1B)


def test_a_comparison_without_a_kind_of_stage_is_refused(tmp_path: Path) -> None:
    given = report()
    given["ways"][1]["stages"] = {"vision, 1 tile": {"ms": 3.0}}
    file = tmp_path / "comparison.json"
    file.write_text(json.dumps(given))
    with pytest.raises(ConfigError, match="lacks a stage; measured: vision, 1 tile"):
        read_efficiency(file, INTERNVL2_1B)


def test_published_shares_follow_from_published_figures() -> None:
    """117 tokens/s of 0.596 billion weights in 16 bits; 25 images/s of ViT-B/16 with 768 / 16 patches a side."""
    rows, width = 1 + 48**2, 768
    image = 12 * (2 * rows * 12 * width**2 + 4 * rows**2 * width)
    assert set(PUBLISHED.shares) == set(KINDS)
    for share in PUBLISHED.shares.values():
        assert share.memory == pytest.approx(117 * 2 * 0.596e9 / 204.8e9, abs=0.005)
        assert share.arithmetic == pytest.approx(25 * image / (16 * 2048 * 1.3e9), abs=0.006)


def test_a_share_lowers_rates() -> None:
    assert Share(0.5, 0.25).of(Rates(100, 1000)) == Rates(50, 250)
