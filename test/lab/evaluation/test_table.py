from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from package_files import DEMO_MODEL
from PIL import Image

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.table import Table, TableRun, make_table
from litevlm_ros.lab.evaluation.table_accuracy import Given, Provenance, RowAccuracy
from litevlm_ros.lab.evaluation.table_latency import RowLatency
from litevlm_ros.lab.evaluation.table_rows import Parts

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
    alone = replace(TABLE, latency={}, latency_from=None)
    told = alone.markdown()
    assert "| base | 3.00 | 300 | - | - | - | - | - | - | 100.0 (51.0 to 100.0) | - |" in told
    assert "Milliseconds" not in told
    assert alone.json()["latency_from"] is None


RUN = TableRun(
    PipelineConfig(DEMO_MODEL, backend="onnxruntime", threads=1),
    Parts(precisions=("auto", "auto")),  # drawing graphs in FP8 takes too long here
    seed=0,
    questions=2,
    latency_questions=1,
)


@pytest.fixture(scope="module")
def made() -> tuple[Table, Mapping[str, Any]]:
    pytest.importorskip("onnxruntime", reason="the demo model runs on ONNX Runtime")
    notes: list[str] = []
    return make_table(RUN, notes.append)


@pytest.mark.slow
def test_the_demo_models_table(made: tuple[Table, Mapping[str, Any]]) -> None:
    table, report = made
    rows = report["table"]["rows"]
    assert len(rows) == 7
    assert rows["base"]["views_kept"] == 6
    assert rows["view_selection"]["views_kept"] < 6
    base = rows["base"]["latency"]
    per_view = {name: row["latency"]["tokens_per_view"] for name, row in rows.items()}
    assert per_view["base"] == per_view["view_selection"] == 64
    assert per_view["token_selection"] == per_view["random_tokens"] == per_view["all"] == 38  # 60 %
    assert table.accuracy["all"].visual_tokens == 38 * table.accuracy["all"].views
    assert all(base[f"{stage}_ms"] > 0 for stage in ("vision", "prefill", "token", "decode", "total"))
    assert table.accuracy["all_fp8"] is table.accuracy["all"]
    assert "ONNX Runtime" in report["table"]["accuracy_from"]["model"]
    assert "| all |" in table.markdown()


@pytest.mark.slow
def test_another_machine_goes_on_from_its_file(made: tuple[Table, Mapping[str, Any]], tmp_path: Path) -> None:
    table, report = made
    file = tmp_path / "table.json"
    file.write_text(json.dumps(report))
    there = PipelineConfig(tmp_path / "nowhere", backend="onnxruntime")
    again, copied = make_table(replace(RUN, base=there, accuracy_from=file, latency_questions=0), print)
    assert again.accuracy == table.accuracy
    assert again.accuracy_from == table.accuracy_from
    assert json.dumps(copied["accuracy"]) == json.dumps(report["accuracy"])

    timed, _ = make_table(
        replace(RUN, base=there, accuracy_from=file, latency_model=DEMO_MODEL, latency_questions=1), print
    )
    assert timed.latency["base"].questions == 1
    assert timed.latency["base"].tokens_per_view == 64

    other = json.loads(file.read_text())
    other["accuracy"]["questions"][0] = "Why?"
    file.write_text(json.dumps(other))
    with pytest.raises(ConfigError, match=r"--accuracy-from: .*table\.json has other questions"):
        make_table(replace(RUN, accuracy_from=file), print)


@pytest.mark.parametrize("content", ["", "{}", '{"accuracy": {"origin": {"machine": "x"}}}', "[1]", '{"accuracy": 3}'])
def test_a_file_that_is_no_table_is_explained(content: str, tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    with pytest.raises(ConfigError, match="--accuracy-from: cannot read"):
        make_table(replace(RUN, accuracy_from=file), print)
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"is no table of this version .* `evaluate --table --json FILE`"):
        make_table(replace(RUN, accuracy_from=file), print)


@pytest.mark.parametrize("count", [-1, 5])
def test_more_questions_than_there_are_cannot_be_timed(count: int) -> None:
    with pytest.raises(ConfigError, match=f"--latency-questions is {count}; allowed: from 0 to --questions"):
        make_table(replace(RUN, latency_questions=count), print)


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
