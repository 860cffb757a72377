from __future__ import annotations

from dataclasses import replace

import pytest
import table_halves

TABLE = table_halves.table()


def test_every_figure_stands_in_its_column() -> None:
    titles, _, *rows = TABLE.markdown().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (titles, *rows[:3])]
    base, everything, fp8 = (dict(zip(cells[0], row, strict=True)) for row in cells[1:])
    assert base[""] == "base"
    assert base["visual tokens"] == "768", "those of the model that was timed"
    assert base["total ms"] == "40.0"
    assert everything["views kept"] == "1.00"
    assert everything["visual tokens"] == "128"
    assert everything["select ms"] == "0.50"
    assert everything["ms/token"] == "1.50"
    assert everything["total ms"] == "16.0 (2.50x)"
    assert everything["accuracy %"] == "75.0 (30.1 to 95.4)"
    assert everything["points lost"] == "25.0 (-17.4 to 67.4)"
    assert set(fp8.values()) == {"all + FP8", "-"}


def test_the_notes_name_both_machines_and_why_figures_are_missing() -> None:
    told = TABLE.markdown()
    assert "Accuracy: 4 questions, models/demo, a CPU" in told
    assert "2 questions about new frames, models, a GPU" in told
    assert "- No accuracy of all + FP8, latency of all + FP8: no FP8 here" in told


def test_token_selection_is_compared_with_random_tokens() -> None:
    assert TABLE.over_random() is None
    base, everything = TABLE.accuracy["base"], TABLE.accuracy["all"]
    rows = {"base": base, "token_selection": base, "random_tokens": everything}
    chosen = replace(TABLE, titles={name: name for name in rows}, accuracy=rows, latency={})
    assert "Token selection is 25.0 points (-17.4 to 67.4) better than random tokens" in chosen.markdown()
    assert chosen.json()["token_selection_over_random"][0] == 25


def test_json_has_the_same() -> None:
    report = TABLE.json()
    everything = report["rows"]["all"]
    assert everything["speed_up"] == 2.5
    assert everything["lost_points"][0] == 25
    assert everything["accuracy_interval"] == pytest.approx([0.301, 0.954], abs=1e-3)
    assert everything["latency"]["accepted"] == 3
    assert report["rows"]["all_fp8"]["accuracy"] is None
    assert report["latency_from"]["machine"] == "a GPU"


def test_without_times_the_accuracy_stands_alone() -> None:
    alone = replace(TABLE, latency={}, latency_origin=None)
    told = alone.markdown()
    assert "| base | 3.00 | 300 | - | - | - | - | - | - | 100.0 (51.0 to 100.0) | - |" in told
    assert "Milliseconds" not in told
    assert alone.json()["latency_from"] is None
