from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.table import REFERENCE, Table
from litevlm_ros.lab.evaluation.table_accuracy import Given, Provenance, RowAccuracy
from litevlm_ros.lab.evaluation.table_latency import RowLatency

TITLES = {"base": "base", "all": "all", "all_fp8": "all + FP8"}


def _given(letters: str, views: int, tokens: int) -> list[Given]:
    """'r' is right, 'w' wrong, 'c' a caption."""
    cameras = ("front", "back", "front_left")[:views]
    return [Given(letter, cameras, tokens, 0.5, {"r": True, "w": False}.get(letter)) for letter in letters]


def _accuracy() -> Mapping[str, RowAccuracy]:
    return {
        "base": RowAccuracy(_given("crrrr", 3, 300), "the CPU"),
        "all": RowAccuracy(_given("crrrw", 1, 50), "the CPU"),
        "all_fp8": RowAccuracy(obstacle="no FP8 here"),
    }


def _latency() -> Mapping[str, RowLatency]:
    return {
        "base": RowLatency(2, "the GPU", 256, 1, 10, 0, 20, 2, 9, 40, decoded=9),
        "all": RowLatency(2, "the GPU", 128, 1, 4, 0.5, 5, 1.5, 5.5, 16, decoded=9, accepted=3),
        "all_fp8": RowLatency(obstacle="no FP8 here"),
    }


TABLE = Table(
    TITLES, _accuracy(), Provenance("a CPU", "models/demo", 0, 4), _latency(), Provenance("a GPU", "models", 0, 2)
)


def _rows(table: Table) -> dict[str, dict[str, str]]:
    """Returns the cells of each row by its title, and those by the title of their column."""
    titles, _, *rows = (line.strip("| ").split(" | ") for line in table.markdown().split("\n\n")[0].splitlines())
    return {row[0]: dict(zip(titles, row[1:], strict=True)) for row in rows}


def test_every_figure_stands_in_its_column() -> None:
    base, everything, fp8 = _rows(TABLE).values()
    assert base["visual tokens"] == "768", "those of the model that was timed"
    assert base["total ms"] == "40.0"
    assert everything["views kept"] == "1.00"
    assert everything["visual tokens"] == "128"
    assert everything["select ms"] == "0.50"
    assert everything["preprocess ms"] == "1.0"
    assert everything["total ms"] == "16.0"
    assert (base["speed of base"], everything["speed of base"]) == ("-", "2.50x")
    assert "speed of transformers" not in base
    assert everything["accuracy %"] == "75.0 (30.1 to 95.4)"
    assert everything["points lost"] == "25.0 (-17.4 to 67.4)"
    assert set(fp8.values()) == {"-"}


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


def test_transformers_is_a_row_of_its_own_that_the_others_are_compared_with() -> None:
    timed = {**TABLE.latency, REFERENCE: RowLatency(2, "PyTorch, compiled", 256, 5, 20, 0, 40, 3, 15, 80, decoded=9)}
    table = replace(TABLE, titles={**TITLES, REFERENCE: "transformers, compiled"}, latency=timed)
    rows = _rows(table)
    assert [row["speed of transformers"] for row in rows.values()] == ["2.00x", "5.00x", "-", "-"]
    reference = rows["transformers, compiled"]
    assert (reference["views kept"], reference["visual tokens"]) == ("6.00", "1536")
    assert (reference["total ms"], reference["speed of base"]) == ("80.0", "0.50x")
    assert (reference["accuracy %"], reference["points lost"]) == ("-", "-")
    assert "transformers, compiled: PyTorch, compiled. It answers the base's questions" in table.markdown()
    assert table.json()["rows"]["all"]["speed_up_over_transformers"] == 5
    assert table.json()["rows"][REFERENCE]["views_kept"] is None


def test_a_table_with_some_rows_only_can_be_shown() -> None:
    some = replace(TABLE, accuracy={"base": TABLE.accuracy["base"]}, latency={}, latency_from=None)
    assert "| all | - | - |" in some.markdown()
    assert some.json()["rows"]["all"]["accuracy"] is None


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
    alone = replace(TABLE, latency={}, latency_from=None)
    told = alone.markdown()
    assert "| base | 3.00 | 300 | - | - | - | - | - | - | - | 100.0 (51.0 to 100.0) | - |" in told
    assert "Milliseconds" not in told
    assert alone.json()["latency_from"] is None


def test_the_table_becomes_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws")
    file = tmp_path / "new" / "table.png"
    TABLE.draw(file)
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(10**6) or ()) > 50


def test_without_times_there_is_nothing_to_draw(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws")
    with pytest.raises(ConfigError, match="--latency-questions"):
        replace(TABLE, latency={}).draw(tmp_path / "table.png")
