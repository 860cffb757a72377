from __future__ import annotations

import random
from pathlib import Path

import pytest
from PIL import Image

charts = pytest.importorskip("litevlm_ros.lab.charts", reason="draws with matplotlib")


def colours(file: Path) -> int:
    with Image.open(file) as image:
        assert image.format == "PNG"
        return len(image.convert("RGB").getcolors(10**6) or ())


def test_a_soak_shows_both_series(tmp_path: Path) -> None:
    rng = random.Random(4)

    def series(low: float, high: float) -> list[tuple[float, float]]:
        return [(float(second), rng.uniform(low, high)) for second in range(120)]

    file = tmp_path / "new" / "soak.png"
    charts.draw_soak(
        "two minutes",
        120.0,
        30.0,
        memory=series(200, 210),
        latencies={"captions": series(90, 110), "answers": series(190, 210)},
        machine=series(9, 11),
        file=file,
    )
    assert colours(file) > 50
    assert file.stat().st_size > 20_000


def test_a_soak_without_answers_can_be_drawn(tmp_path: Path) -> None:
    nothing: list[tuple[float, float]] = []
    charts.draw_soak(
        "nothing", 6.0, 1.5, memory=nothing, latencies={"captions": nothing}, machine=nothing, file=tmp_path / "a.png"
    )
    assert colours(tmp_path / "a.png") > 1


def test_a_training_log_has_losses_at_each_step_and_shares_at_some(tmp_path: Path) -> None:
    log = [{"step": 1.0, "answers": 3.0}, {"step": 2.0, "answers": 2.0, "captions": 0.5}]
    charts.draw_training(log, ("answers",), ("captions",), tmp_path / "loss.png")
    assert colours(tmp_path / "loss.png") > 50
