from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from package_files import DEMO_MODEL

pytest.importorskip("onnxruntime", reason="the demo model runs on ONNX Runtime")

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.make_table import TableRun, make_table
from litevlm_ros.lab.evaluation.table import Table
from litevlm_ros.lab.evaluation.table_rows import Parts

RUN = TableRun(
    PipelineConfig(DEMO_MODEL, backend="onnxruntime", threads=2),
    Parts(precisions=("auto", "auto")),  # drawing graphs in FP8 takes too long here
    seed=0,
    questions=4,
    latency_questions=2,
)


@pytest.fixture(scope="module")
def made() -> tuple[Table, Mapping[str, Any]]:
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
    assert again.accuracy_origin == table.accuracy_origin
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
