"""One run of the table: measures what its file does not have yet, and writes the file after each row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.table import BASE, REFERENCE, Table
from litevlm_ros.lab.evaluation.table_accuracy import (
    Given,
    Provenance,
    RowAccuracy,
    answering,
    half_json,
    measure_accuracy,
    read_accuracy,
    row_from_json,
    row_json,
)
from litevlm_ros.lab.evaluation.table_file import ACCURACY, LATENCY, ORIGIN, TableFile
from litevlm_ros.lab.evaluation.table_latency import (
    NOTHING_TO_REPLAY,
    Asked,
    RowLatency,
    measure_latency,
    replayed_answers,
    replayed_config,
)
from litevlm_ros.lab.evaluation.table_origin import (
    Origin,
    digest,
    pipeline_origin,
    reference_origin,
)
from litevlm_ros.lab.evaluation.table_rows import Parts, TableQuestion, table_questions, table_rows
from litevlm_ros.machine import describe
from litevlm_ros.types import Notify


@dataclass(frozen=True)
class Reference:
    """Another program that answers the base's questions with the same weights, as a row of its own.

    `measure` takes a model directory, all questions with the answers to repeat, the number of those to time, and
    Notify. What it cannot do becomes the row's obstacle. `packages` are pip's names of what it runs on, and `settings`
    say how, in JSON.
    """

    title: str
    measure: Callable[[Path, Sequence[Asked], int, Notify], RowLatency]
    packages: tuple[str, ...] = ()
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class TableRun:
    """The settings of one run of the table.

    `base` is the plain pipeline on the model whose accuracy is measured. `latency_model` is the model directory whose
    latency is measured, None for the same. Of `questions` short questions the first `latency_questions`, captions among
    them, are timed; 0 times none. `accuracy_from` is a file that takes the place of measuring accuracy. `reference`
    adds a row to the latency half.
    """

    base: PipelineConfig
    parts: Parts
    seed: int
    questions: int
    latency_questions: int
    latency_model: Path | None = None
    accuracy_from: Path | None = None
    reference: Reference | None = None


def make_table(run: TableRun, notify: Notify, results: TableFile | None = None) -> Table:
    """Measures the rows that `results` does not have, and writes all of it there after each row.

    Raises LiteVLMError, among them ConfigError if `results` has rows of another origin.
    """
    if not 0 <= run.latency_questions <= run.questions:
        raise ConfigError(
            f"--latency-questions is {run.latency_questions}; allowed: from 0 to --questions ({run.questions})"
        )
    making = _Making(run, notify, results or TableFile(None))
    making.answer()
    if run.latency_questions:
        making.time()
    making.write()
    return making.table()


class _Making:
    """A table that grows row by row."""

    def __init__(self, run: TableRun, notify: Notify, results: TableFile) -> None:
        self._run, self._notify, self._results = run, notify, results
        self._rows = table_rows(run.base, run.parts)
        self._asked: Sequence[TableQuestion] = ()
        self._source = Provenance(_machine(), "", run.seed, run.questions)
        self._accuracy: dict[str, RowAccuracy] = {}
        self._latency: dict[str, RowLatency] = {}
        self._origins: dict[str, dict[str, Origin]] = {ACCURACY: {}, LATENCY: {}}

    def answer(self) -> None:
        """Makes the accuracy half."""
        if self._run.accuracy_from:
            earlier = read_accuracy(self._run.accuracy_from, [row.name for row in self._rows])
            self._accuracy |= earlier.rows
            self._source, self._asked = earlier.provenance, earlier.asked
            self._origins[ACCURACY] = {name: earlier.raw.get(name, {}).get(ORIGIN, {}) for name in earlier.rows}
            self._results.fitting(ACCURACY, self._origins[ACCURACY])
            return
        self._asked = table_questions(self._run.seed, self._run.questions)
        for row in self._rows:
            self._origins[ACCURACY][row.name] = pipeline_origin(answering(row.config), self._questions())
        there = self._results.fitting(ACCURACY, self._origins[ACCURACY])
        known = {name: row_from_json(row) for name, row in there.items()}
        self._accuracy |= known
        self._tell(ACCURACY, known)
        measure_accuracy(self._rows, self._asked, self._notify, known, self._keep_accuracy)

    def time(self) -> None:
        """Makes the latency half. The accuracy half must be complete."""
        directory, count = self._run.latency_model or self._run.base.model_dir, self._run.latency_questions
        if count > self._source.questions:
            raise ConfigError(
                f"--latency-questions is {count}; allowed: from 0 to the {self._source.questions} questions of "
                f"{self._run.accuracy_from}"
            )
        rows = [replace(row, config=replace(row.config, model_dir=directory)) for row in self._rows]
        replayed = replayed_answers(rows, self._accuracy)
        for row in rows:
            questions = self._questions(replayed[row.name])
            self._origins[LATENCY][row.name] = pipeline_origin(replayed_config(row), questions)
        reference = self._run.reference
        if reference:
            self._origins[LATENCY][REFERENCE] = reference_origin(
                directory, reference.packages, self._questions(replayed[BASE]), reference.settings or {}
            )
        there = self._results.fitting(LATENCY, self._origins[LATENCY])
        known = {name: _latency_from_json(row) for name, row in there.items()}
        self._latency |= known
        self._tell(LATENCY, known)
        missing = [row for row in rows if row.name not in known]
        measure_latency(missing, self._asked, replayed, count, self._notify, self._keep_latency)
        # Last, because PyTorch keeps some of the memory that it has used.
        if reference and REFERENCE not in known:
            self._notify(f"latency: {reference.title}")
            measured = RowLatency(obstacle=NOTHING_TO_REPLAY)
            if replayed[BASE]:
                pairs = list(zip(self._asked, replayed[BASE], strict=True))
                measured = reference.measure(directory, pairs, count, self._notify)
            self._keep_latency(REFERENCE, measured)

    def table(self) -> Table:
        """Returns what there is so far."""
        titles = {row.name: row.title for row in self._rows}
        if self._run.reference and self._run.latency_questions:
            titles[REFERENCE] = self._run.reference.title
        source = self._source
        if not self._run.accuracy_from:
            source = replace(source, model=_model(self._run.base.model_dir, self._accuracy.values()))
        timed = None
        if self._latency:
            count = max(row.questions for row in self._latency.values())
            ours = [row for name, row in self._latency.items() if name != REFERENCE]
            directory = self._run.latency_model or self._run.base.model_dir
            timed = Provenance(_machine(), _model(directory, ours), source.seed, count)
        return Table(titles, self._accuracy, source, self._latency, timed)

    def _questions(self, replayed: Sequence[Given] | None = None) -> dict[str, Any]:
        """Returns the part of an origin that is about the questions; `replayed` are the answers of a timed row."""
        asked = {
            "seed": self._source.seed,
            "number": self._source.questions,
            "texts": digest([one.question.text for one in self._asked]),
        }
        if replayed is None:
            return asked
        answers = digest([list(vars(given).values()) for given in replayed])
        return {**asked, "timed": self._run.latency_questions, "answers": answers}

    def _tell(self, half: str, known: Mapping[str, object]) -> None:
        if known:
            self._notify(f"{half}: {', '.join(known)} measured before")

    def _keep_accuracy(self, name: str, row: RowAccuracy) -> None:
        self._accuracy[name] = row
        self.write()

    def _keep_latency(self, name: str, row: RowLatency) -> None:
        self._latency[name] = row
        self.write()

    def write(self) -> None:
        """Writes what there is so far. What earlier runs have left and this one does not ask for stays there."""
        table = self.table()
        answered = {name: {**row_json(row), **self._origin(ACCURACY, name)} for name, row in self._accuracy.items()}
        timed = {name: {**asdict(row), **self._origin(LATENCY, name)} for name, row in self._latency.items()}
        self._results.write(
            {
                "machine": describe(),
                "table": table.json(),
                ACCURACY: half_json(table.accuracy_from, self._asked, answered),
                LATENCY: {"rows": {**self._results.rows(LATENCY), **timed}},
            }
        )

    def _origin(self, half: str, name: str) -> dict[str, Origin]:
        return {ORIGIN: self._origins[half][name]}


def _latency_from_json(row: Mapping[str, Any]) -> RowLatency:
    return RowLatency(**{name: value for name, value in row.items() if name != ORIGIN})


def _machine() -> str:
    host = describe()
    return ", ".join(part for part in (host["gpu"], f"{host['cores']} cores of {host['cpu']}") if part)


def _model(directory: Path, figures: Iterable[RowAccuracy] | Iterable[RowLatency]) -> str:
    """Returns the directory's name, and what ran it."""
    backends = dict.fromkeys(row.backend for row in figures if row.backend)
    return f"{directory.parent.name}/{directory.name} on {' and '.join(backends) or 'nothing'}"
