"""The accuracy half of the table: the answers of each row, how many are right, and from how many views.

The half can be read back from a file, so that another machine can measure the latency of the same answers.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from litevlm_ros.config import PipelineConfig, ReuseConfig, SpeculationConfig
from litevlm_ros.errors import ConfigError, EngineError, LiteVLMError
from litevlm_ros.lab.evaluation.answering import Reply
from litevlm_ros.lab.evaluation.scores import Share, is_right
from litevlm_ros.lab.evaluation.table_rows import RenderedViews, TableQuestion, TableRow, table_questions
from litevlm_ros.lab.world.calibration import calibration_data
from litevlm_ros.model_directory import PLAIN, TEXT, VISION, graph_name
from litevlm_ros.packages import CONVERSION, pip_command
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.precision import PACKED_PRECISIONS
from litevlm_ros.runtime.tensorrt import engine_files
from litevlm_ros.types import Notify, Timings, milliseconds_since
from litevlm_ros.vision.learned_view_selection import load_view_selector
from litevlm_ros.vision.view_selection import ViewSelector

Load = Callable[[PipelineConfig], Pipeline]

_NOTE_EVERY = 500


@dataclass(frozen=True)
class Provenance:
    """The source of one half of a table: machine and model in words, and the seed and number of the questions."""

    machine: str
    model: str
    seed: int
    questions: int


@dataclass(frozen=True)
class Given:
    """One answer, the cameras and the number of visual tokens behind it, and the ms that choosing the views took.

    `right` is None for a caption.
    """

    text: str
    cameras: tuple[str, ...]
    visual_tokens: int
    choose_ms: float
    right: bool | None


@dataclass(frozen=True)
class RowAccuracy:
    """The answers of a row to all questions. Where it cannot run, there are none and `obstacle` has the reason."""

    given: Sequence[Given] = ()
    backend: str = ""
    obstacle: str = ""

    @property
    def outcomes(self) -> list[bool]:
        """True for each short answer that is right, in the order of the questions."""
        return [given.right for given in self.given if given.right is not None]

    @property
    def right(self) -> Share:
        """The share of short answers that are right."""
        return Share.of(self.outcomes)

    @property
    def views(self) -> float:
        """The mean number of views kept for a question."""
        return fmean(len(given.cameras) for given in self.given)

    @property
    def visual_tokens(self) -> float:
        """The mean number of visual tokens of a question."""
        return fmean(given.visual_tokens for given in self.given)


def load_or_draw(config: PipelineConfig) -> Pipeline:
    """Loads a pipeline. Without engines, packed precisions of `config` are drawn as exact graphs first.

    ONNX Runtime then computes with the numbers that engines of these precisions store, and not in 8 bits as the graphs
    of the model directory do. Graphs in fp16 are drawn if they are missing. Raises LiteVLMError.
    """
    precisions = {VISION: config.vision_precision, TEXT: config.text_precision}
    has_engines = config.backend == "tensorrt" or (config.backend == "auto" and engine_files.obstacle(config) is None)
    if has_engines or not set(precisions.values()) & set(PACKED_PRECISIONS):
        try:
            return Pipeline.from_config(config)
        except EngineError:
            if has_engines or set(precisions.values()) == {"auto"}:
                raise
    try:
        from litevlm_ros.convert.export import export_graphs
    except ImportError as error:
        raise EngineError(
            f"the graphs in {' and '.join(precisions.values())} are missing in {config.model_dir}, and to draw them "
            f"needs PyTorch ({error}): `{pip_command(*CONVERSION)}`"
        ) from None
    with tempfile.TemporaryDirectory(prefix="litevlm_packed_") as name:
        directory = Path(name)
        named = {part: PLAIN if precision == "auto" else precision for part, precision in precisions.items()}
        calibration = partial(calibration_data, config.model_dir)
        for _ in export_graphs(config.model_dir, directory, named, check=False, calibration=calibration, exact=True):
            pass
        # View selector and whatever else the model has beside its two halves.
        for file in config.model_dir.glob("*.onnx"):
            if file.name not in (graph_name(VISION), graph_name(TEXT)):
                shutil.copy(file, directory)
        return Pipeline.from_config(replace(config, model_dir=directory, backend="onnxruntime"))


Keep = Callable[[str, RowAccuracy], object]
"""A function that is given each row by its name as soon as it is measured."""


def answering(config: PipelineConfig) -> PipelineConfig:
    """Returns `config` without what changes the speed of answers only: drafts and reuse change none."""
    return replace(config, speculation=SpeculationConfig(), reuse=ReuseConfig())


def measure_accuracy(
    rows: Sequence[TableRow],
    asked: Sequence[TableQuestion],
    notify: Notify,
    known: Mapping[str, RowAccuracy],
    keep: Keep,
    load: Load = load_or_draw,
) -> None:
    """Puts all questions to each row that is not in `known`. Rows that differ in nothing but speed share answers."""
    shared: list[tuple[PipelineConfig, RowAccuracy]] = []
    for row in rows:
        config = answering(row.config)
        measured = known.get(row.name) or next((accuracy for other, accuracy in shared if other == config), None)
        if measured is None:
            notify(f"accuracy: {row.title}")
            measured = _measure(config, asked, notify, load)
        shared.append((config, measured))
        if row.name not in known:
            keep(row.name, measured)


def _measure(config: PipelineConfig, asked: Sequence[TableQuestion], notify: Notify, load: Load) -> RowAccuracy:
    try:
        selector = load_view_selector(config.view_selection, config.model_dir)
        with contextlib.closing(load(config)) as pipeline:
            given, rendered = [], RenderedViews()
            for one in asked:
                given.append(_answer(pipeline, one, rendered, selector))
                if len(given) % _NOTE_EVERY == 0:
                    notify(f"  {len(given)} of {len(asked)}")
            return RowAccuracy(given, pipeline.backend.description)
    except LiteVLMError as error:
        return RowAccuracy(obstacle=str(error))


def _answer(pipeline: Pipeline, one: TableQuestion, rendered: RenderedViews, selector: ViewSelector | None) -> Given:
    answer = pipeline.generate(rendered.of(one), one.question.text)
    choose_ms = 0.0
    if selector is not None:
        # The pipeline's own time for it includes choosing tokens, which latency is measured of.
        started = time.perf_counter()
        selector.select(one.question.text, one.exercise.cameras)
        choose_ms = milliseconds_since(started)
    right = is_right(Reply(one.exercise, one.question, answer.text, Timings())) if one.scored else None
    return Given(answer.text, answer.cameras, answer.tokens.visual, choose_ms, right)


def row_json(row: RowAccuracy) -> dict[str, Any]:
    """Returns all that `row_from_json` needs."""
    return {"backend": row.backend, "obstacle": row.obstacle, "given": [list(vars(one).values()) for one in row.given]}


def row_from_json(row: Mapping[str, Any]) -> RowAccuracy:
    """Makes a row of what `row_json` returned. Raises KeyError, TypeError or ValueError for something else."""
    given = [Given(text, tuple(cameras), *rest) for text, cameras, *rest in row["given"]]
    return RowAccuracy(given, row["backend"], row["obstacle"])


def half_json(provenance: Provenance, asked: Sequence[TableQuestion], rows: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `read_accuracy` needs; `rows` has the `row_json` of each, to which more may have been added."""
    return {"origin": asdict(provenance), "questions": [one.question.text for one in asked], "rows": rows}


@dataclass(frozen=True)
class EarlierAccuracy:
    """The accuracy half of an earlier table, and its questions. `raw` has its rows by their names, as the file has."""

    rows: Mapping[str, RowAccuracy]
    provenance: Provenance
    asked: Sequence[TableQuestion]
    raw: Mapping[str, Any]


def read_accuracy(file: Path, names: Sequence[str]) -> EarlierAccuracy:
    """Reads the accuracy half of an earlier table. Rows that it lacks say so as their obstacle.

    Raises ConfigError for a file that cannot be read, or whose questions are not what this version asks.
    """
    try:
        half = json.loads(file.read_text(encoding="utf-8"))["accuracy"]
        provenance = Provenance(**half["origin"])
        asked = table_questions(provenance.seed, provenance.questions)
        rows = {name: row_from_json(row) for name, row in half["rows"].items()}
        questions = half["questions"]
    except OSError as error:
        raise ConfigError(f"--accuracy-from: cannot read {file} ({error.strerror})") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"--accuracy-from: {file} is no table of this version ({type(error).__name__}: {error}). Give the file "
            "that `evaluate --table --json FILE` wrote"
        ) from None
    if questions != [one.question.text for one in asked]:
        raise ConfigError(
            f"--accuracy-from: {file} has other questions than this version asks; run `evaluate --table` again for it"
        )
    missing = RowAccuracy(obstacle=f"the row is not in {file.name}")
    return EarlierAccuracy({name: rows.get(name, missing) for name in names}, provenance, asked, half["rows"])
