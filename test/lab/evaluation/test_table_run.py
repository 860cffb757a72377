"""A table from beginning to end: rows that are measured, kept in a file, and taken from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from package_files import DEMO_MODEL

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation import table_origin, table_run
from litevlm_ros.lab.evaluation.table import REFERENCE, Table
from litevlm_ros.lab.evaluation.table_accuracy import Given
from litevlm_ros.lab.evaluation.table_file import TableFile
from litevlm_ros.lab.evaluation.table_latency import Asked, RowLatency
from litevlm_ros.lab.evaluation.table_rows import Parts, TableQuestion
from litevlm_ros.lab.evaluation.table_run import Reference, TableRun, make_table
from litevlm_ros.types import Answer, FinishReason, Notify, Timings, TokenCounts, View

RUN = TableRun(
    PipelineConfig(DEMO_MODEL, backend="onnxruntime", threads=1),
    Parts(precisions=("auto", "auto")),  # drawing graphs in FP8 takes too long here
    seed=0,
    questions=2,
    latency_questions=1,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Table, Path]:
    pytest.importorskip("onnxruntime", reason="the demo model runs on ONNX Runtime")
    file = tmp_path_factory.mktemp("table") / "table.json"
    return make_table(RUN, lambda line: None, TableFile(file)), file


@pytest.mark.slow
def test_the_demo_models_table(made: tuple[Table, Path]) -> None:
    table, file = made
    report = json.loads(file.read_text())
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
def test_another_machine_goes_on_from_its_file(made: tuple[Table, Path], tmp_path: Path) -> None:
    table, file = made
    there = replace(RUN, base=PipelineConfig(tmp_path / "nowhere", backend="onnxruntime"), accuracy_from=file)
    copy = tmp_path / "copy.json"
    again = make_table(replace(there, latency_questions=0), print, TableFile(copy))
    assert again.accuracy == table.accuracy
    assert again.accuracy_from == table.accuracy_from
    assert json.loads(copy.read_text())["accuracy"] == json.loads(file.read_text())["accuracy"]

    timed = make_table(replace(there, latency_model=DEMO_MODEL), print)
    assert timed.latency["base"].questions == 1
    assert timed.latency["base"].tokens_per_view == 64

    other = json.loads(file.read_text())
    other["accuracy"]["questions"][0] = "Why?"
    changed = tmp_path / "table.json"
    changed.write_text(json.dumps(other))
    with pytest.raises(ConfigError, match=r"--accuracy-from: .*table\.json has other questions"):
        make_table(replace(RUN, accuracy_from=changed), print)


class Interrupting:
    """Counts what is measured, and is interrupted in place of measurement number `after`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.after = -1
        self.measured: list[str] = []
        monkeypatch.setattr(table_run, "measure_accuracy", partial(table_run.measure_accuracy, load=self._knowing))
        monkeypatch.setattr(table_run, "measure_latency", partial(table_run.measure_latency, load=self._replaying))

    def reference(self, directory: Path, pairs: Sequence[Asked], count: int, notify: Notify) -> RowLatency:
        self._count("reference")
        return RowLatency(count, "PyTorch", 256, total_ms=100.0)

    def _knowing(self, config: PipelineConfig) -> Any:
        self._count("accuracy")
        return Knowing(config)

    def _replaying(self, config: PipelineConfig, rendered: object) -> Any:
        return SimpleNamespace(description="a clock", load_seconds=0.0, pipeline=self._pipeline, close=lambda: None)

    def _pipeline(self, config: PipelineConfig) -> Any:
        self._count("latency")
        return Replaying(config)

    def _count(self, half: str) -> None:
        if len(self.measured) == self.after:
            raise KeyboardInterrupt
        self.measured.append(half)


class Knowing:
    """Answers "yes" to everything, with the first view if it selects views."""

    def __init__(self, config: PipelineConfig) -> None:
        self.config = config
        self.backend = SimpleNamespace(description="a script")

    def generate(self, views: Sequence[View], question: str) -> Answer:
        cameras = tuple(view.camera for view in views)[: 1 if self.config.view_selection.method != "off" else None]
        return Answer("yes", question, cameras, FinishReason.STOP, TokenCounts(9, 4 * len(cameras), 1), Timings())

    def close(self) -> None:
        pass


class Replaying:
    """Answers in 10 ms a view."""

    def __init__(self, config: PipelineConfig) -> None:
        self.config = config

    def answer(self, asked: TableQuestion, given: Given) -> Answer:
        timings = Timings(vision=9.0 * len(given.cameras), total=10.0 * len(given.cameras))
        tokens = TokenCounts(9, 4 * len(given.cameras), 1)
        return Answer(given.text, "", given.cameras, FinishReason.STOP, tokens, timings)

    answer_without_drafts = answer


SCRIPTED = replace(
    RUN,
    base=PipelineConfig(DEMO_MODEL, backend="onnxruntime"),
    parts=Parts("lexical", precisions=("auto", "fp8")),
    questions=3,
    latency_questions=2,
)
MEASUREMENTS = ["accuracy"] * 6 + ["latency"] * 7 + ["reference"]
"""Rows that only speed tells apart share their answers, and all others are measured."""


def with_reference(working: Interrupting) -> TableRun:
    return replace(SCRIPTED, reference=Reference("transformers, compiled", working.reference))


@pytest.mark.parametrize("after", range(len(MEASUREMENTS)))
def test_an_interrupted_run_goes_on(after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever Ctrl-C comes, nothing is measured twice, and the table is that of a run in one piece."""
    file, working = tmp_path / "table.json", Interrupting(monkeypatch)
    run = with_reference(working)
    working.after = after
    with pytest.raises(KeyboardInterrupt):
        make_table(run, print, TableFile(file))
    assert file.exists() is (after > 0)
    working.after = -1
    notes: list[str] = []
    table = make_table(run, notes.append, TableFile(file))
    assert working.measured == MEASUREMENTS
    assert any("measured before" in note for note in notes) is (after > 0)
    assert not list(tmp_path.glob(".*"))
    assert list(table.latency) == list(table.titles)
    assert (table.latency["base"].vision_ms, table.latency["view_selection"].vision_ms) == (54, 9)
    assert table.speed_up("base", REFERENCE) == pytest.approx(100 / 60)

    again = make_table(run, print, TableFile(file))
    assert working.measured == MEASUREMENTS, "a complete table is only shown"
    assert again == table
    assert again.markdown() == table.markdown()


def test_rows_of_other_settings_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, working = tmp_path / "table.json", Interrupting(monkeypatch)
    make_table(SCRIPTED, print, TableFile(file))
    before = file.read_bytes()
    changes: dict[str, TableRun] = {
        r"accuracy of base: questions number: 3 then, 4 now": replace(SCRIPTED, questions=4),
        r"accuracy of base: questions seed: 0 then, 1 now": replace(SCRIPTED, seed=1),
        r"accuracy of token_selection: settings token_selection keep: 0.6 then, 0.5 now": replace(
            SCRIPTED, parts=replace(SCRIPTED.parts, keep=0.5)
        ),
        r"accuracy of base: settings threads: 0 then, 2 now": replace(SCRIPTED, base=replace(SCRIPTED.base, threads=2)),
        r"latency of base: questions timed: 2 then, 1 now": replace(SCRIPTED, latency_questions=1),
    }
    for message, run in changes.items():
        with pytest.raises(ConfigError, match=rf"{message}.* Add --fresh to measure all rows anew"):
            make_table(run, print, TableFile(file))
    monkeypatch.setattr(table_origin, "_source_digest", lambda idle: "another version")
    with pytest.raises(ConfigError, match=r"software litevlm_ros: \w+ then, another version now"):
        make_table(SCRIPTED, print, TableFile(file))
    assert file.read_bytes() == before
    count = len(working.measured)
    make_table(replace(SCRIPTED, latency_questions=1), print, TableFile(file, fresh=True))
    assert len(working.measured) == 2 * count


def test_what_could_not_run_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, working = tmp_path / "table.json", Interrupting(monkeypatch)
    broken = Reference("transformers", lambda *_: RowLatency(obstacle="no memory"))
    table = make_table(replace(SCRIPTED, reference=broken), print, TableFile(file))
    assert "- No latency of transformers: no memory" in table.markdown()
    count = len(working.measured)
    assert make_table(with_reference(working), print, TableFile(file)).latency[REFERENCE].questions == 2
    assert working.measured[count:] == ["reference"]


def test_what_is_not_asked_for_stays_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, working = tmp_path / "table.json", Interrupting(monkeypatch)
    make_table(with_reference(working), print, TableFile(file))
    assert not make_table(replace(SCRIPTED, latency_questions=0), print, TableFile(file)).latency
    assert REFERENCE not in make_table(SCRIPTED, print, TableFile(file)).titles
    assert REFERENCE in make_table(with_reference(working), print, TableFile(file)).latency
    assert working.measured == MEASUREMENTS


def test_all_rows_run_on_two_loaded_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers come from a scripted model, and their latency from engines on the fake GPU."""
    fake_tensorrt = pytest.importorskip("fake_tensorrt", reason="needs onnx and onnxruntime")
    from fake_cuda import FakeCuda
    from tiny_internvl import model_directory

    file, model = tmp_path / "table.json", tmp_path / "model"
    Interrupting(monkeypatch)
    make_table(replace(SCRIPTED, latency_questions=0), print, TableFile(file))
    monkeypatch.undo()
    shutil.copytree(model_directory(), model)
    fake_tensorrt.install(monkeypatch, FakeCuda())
    run = replace(
        SCRIPTED,
        base=PipelineConfig(tmp_path / "nowhere", backend="tensorrt"),
        parts=Parts("lexical"),
        accuracy_from=file,
        latency_model=model,
        latency_questions=1,
    )
    timed, notes = tmp_path / "timed.json", list[str]()
    try:
        for precision in ("fp16", "fp8"):
            fake_tensorrt.write_engines(model, model, precision)
        table = make_table(run, notes.append, TableFile(timed))
        assert not [row.obstacle for row in table.latency.values() if row.obstacle]
        assert [note.rpartition(": loaded")[0].partition("vision ")[2] for note in notes if ": loaded in" in note] == [
            "fp16, text fp16, context 700", "fp8, text fp8, context 700",
        ]  # fmt: skip
        assert table.latency["base"].tokens_per_view == 4
        assert table.latency["token_selection"].tokens_per_view == 2
        make_table(run, print, TableFile(timed))
        fake_tensorrt.write_engines(model, model, "fp8", calibration="other pictures")
        with pytest.raises(ConfigError, match=r"latency of all_fp8: model vision_encoder_fp8.engine: \w+ then"):
            make_table(run, print, TableFile(timed))
    finally:
        fake_tensorrt.forget()


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
