"""One run of the table: both halves here, or one of them from an earlier run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.table import Origin, Table
from litevlm_ros.lab.evaluation.table_accuracy import RowAccuracy, measure_accuracy
from litevlm_ros.lab.evaluation.table_file import accuracy_json, read_accuracy
from litevlm_ros.lab.evaluation.table_latency import RowLatency, measure_latency
from litevlm_ros.lab.evaluation.table_questions import six_view_questions
from litevlm_ros.lab.evaluation.table_rows import Parts, table_rows
from litevlm_ros.machine import describe


@dataclass(frozen=True)
class TableRun:
    """What to measure.

    `base` is the plain pipeline on the model that accuracy is measured with. `latency_model` is the model directory
    whose latency is, None for the same. Of `questions` short questions the first `latency_questions`, captions among
    them, are timed; 0 times none. `accuracy_from` takes the place of measuring accuracy.
    """

    base: PipelineConfig
    parts: Parts
    seed: int
    questions: int
    latency_questions: int
    latency_model: Path | None = None
    accuracy_from: Path | None = None


def make_table(run: TableRun, notify: Callable[[str], object]) -> tuple[Table, dict[str, Any]]:
    """The table, and all of it as JSON, answers included. Raises LiteVLMError."""
    if not 0 <= run.latency_questions <= run.questions:
        raise ConfigError(
            f"--latency-questions is {run.latency_questions}; allowed: from 0 to --questions ({run.questions})"
        )
    rows = table_rows(run.base, run.parts)
    if run.accuracy_from:
        (accuracy, origin), asked = read_accuracy(run.accuracy_from, [row.name for row in rows])
    else:
        asked = six_view_questions(run.seed, run.questions)
        accuracy = measure_accuracy(rows, asked, notify)
        origin = Origin(_machine(), _model(run.base.model_dir, accuracy.values()), run.seed, run.questions)
    timed = None
    if run.latency_questions:
        directory = run.latency_model or run.base.model_dir
        timed_rows = [replace(row, config=replace(row.config, model_dir=directory)) for row in rows]
        latency = measure_latency(timed_rows, asked, accuracy, run.latency_questions, notify)
        count = max(row.questions for row in latency.values())
        timed = latency, Origin(_machine(), _model(directory, latency.values()), origin.seed, count)
    table = Table.of(rows, (accuracy, origin), timed)
    return table, {"table": table.json(), "accuracy": accuracy_json(accuracy, origin, asked)}


def _machine() -> str:
    host = describe()
    return ", ".join(part for part in (host["gpu"], f"{host['cores']} cores of {host['cpu']}") if part)


def _model(directory: Path, figures: Iterable[RowAccuracy] | Iterable[RowLatency]) -> str:
    """The directory's name, and what ran it."""
    backends = dict.fromkeys(row.backend for row in figures if row.backend)
    return f"{directory.parent.name}/{directory.name} on {' and '.join(backends) or 'nothing'}"
