"""Examine a model on street scenes that training never drew: the share of right answers and of true statements.

ros2 run litevlm_ros evaluate --json evaluation.json
ros2 run litevlm_ros evaluate --view-selection
ros2 run litevlm_ros evaluate --table --json table.json --chart table.png
ros2 run litevlm_ros evaluate --table --accuracy-from table.json --latency-model models --compare-transformers
ros2 run litevlm_ros evaluate --precisions fp16,fp8,int8,int4 --scenes 125
ros2 run litevlm_ros evaluate --token-selection random,diversity,similarity,scorer --token-budgets 0.5,0.25 --scenes 170
ros2 run litevlm_ros evaluate --model models --drivelm test_eval.json --images nuscenes --json drivelm.json

Half of the scenes have combinations that training leaves out. Two baselines answer the same questions: the commonest
answer to each kind of question in training, and the model when every view is black.

A table writes the file of --json after each row. Run the same command again after an interruption: it goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litevlm_ros.config import SPECULATIONS, TOKEN_SELECTIONS, VIEW_SELECTIONS, PipelineConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.drivelm import DriveLMData, report_drivelm
from litevlm_ros.lab.evaluation.drivelm_objects import OBJECT_FORMS, SOURCE_FORM, STITCHED_FORM, Wording
from litevlm_ros.lab.evaluation.evaluation import report_evaluation
from litevlm_ros.lab.evaluation.precision_loss import report_precisions
from litevlm_ros.lab.evaluation.table_file import TableFile
from litevlm_ros.lab.evaluation.table_rows import Parts
from litevlm_ros.lab.evaluation.table_run import Reference, TableRun, make_table
from litevlm_ros.lab.evaluation.token_choice import report_tokens
from litevlm_ros.lab.evaluation.view_choice import report_choice
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.precision import parse_precision_pair
from litevlm_ros.tools.command import (
    add_backend_options,
    add_decode_option,
    add_loaded_precision_options,
    add_model_option,
    new_parser,
    note,
    run_command,
    say,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 after an error that it has explained on stderr."""
    options = _parser().parse_args(argv)
    kept = f"; the rows that were measured are in {options.json}, and the same command goes on from there"
    return run_command(
        lambda: _run(options), interrupted="interrupted" + (kept if options.table and options.json else "")
    )


def _run(options: argparse.Namespace) -> None:
    _check_combination(options)
    for output in ("json", "markdown", "chart"):
        if getattr(options, output):
            _check_writable(output, getattr(options, output))
    config = PipelineConfig(
        model_dir=options.model or demo_model_directory(),
        backend=options.backend,
        vision_precision=options.vision_precision,
        text_precision=options.text_precision,
        decode=options.decode,
        threads=options.threads,
        max_tiles=options.max_tiles,
        stitch_views=options.stitch_views,
    )
    if options.table:
        _make_table(options, config)
        return
    text, figures = _examine(options, config)
    say(text)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _examine(options: argparse.Namespace, config: PipelineConfig) -> tuple[str, dict[str, Any]]:
    scenes, seed = options.scenes, options.seed
    if options.drivelm:
        data = DriveLMData(options.drivelm, options.images, options.drivelm_questions)
        wording = Wording.chosen(options.object_form, options.drivelm_hint, stitched=options.stitch_views)
        return report_drivelm(config, data, options.with_views or "lexical", wording, note)
    if options.precisions:
        return report_precisions(config, options.precisions.split(","), seed, scenes, note)
    with contextlib.closing(Pipeline.from_config(config)) as pipeline:
        if options.view_selection:
            return report_choice(pipeline, seed, scenes)
        if options.token_selection:
            methods = options.token_selection.split(",")
            return report_tokens(pipeline, methods, options.token_budgets, seed, scenes, note)
        return report_evaluation(pipeline, seed, scenes, note)


def _make_table(options: argparse.Namespace, config: PipelineConfig) -> None:
    precisions = parse_precision_pair("--fp8", options.fp8)
    if options.json is None:
        note("without --json FILE, a run that is interrupted starts from the beginning")
    run = TableRun(
        base=config,
        parts=Parts(
            options.with_views or Parts.view_selection,
            options.with_tokens,
            options.keep,
            options.with_drafts,
            precisions,
        ),
        seed=options.seed,
        questions=options.questions,
        latency_questions=options.latency_questions,
        latency_model=options.latency_model,
        accuracy_from=options.accuracy_from,
        reference=_reference(config) if options.compare_transformers else None,
    )
    table = make_table(run, note, TableFile(options.json, fresh=options.fresh))
    say(table.markdown())
    if options.markdown:
        options.markdown.write_text(table.markdown() + "\n", encoding="utf-8")
    if options.chart:
        table.draw(options.chart)


def _reference(config: PipelineConfig) -> Reference:
    """Returns the row of transformers. Raises ConfigError where it cannot run."""
    from litevlm_ros.lab.benchmarking.comparison import require_transformers

    require_transformers("without the option, the table is made without that row")
    from litevlm_ros.lab.benchmarking.transformers_answers import compiled_transformers

    return compiled_transformers(config.max_tiles)


def _check_combination(options: argparse.Namespace) -> None:
    """Raises ConfigError for options that would do nothing."""
    if options.fresh and not (options.table and options.json):
        raise ConfigError("--fresh measures again what the file of --table --json FILE has; give both with it")
    if options.compare_transformers and not (options.table and options.latency_questions):
        raise ConfigError(
            "--compare-transformers adds a row of times to --table; give that, and some --latency-questions. "
            "`benchmark --compare-transformers` compares single stages"
        )
    if bool(options.drivelm) != bool(options.images):
        raise ConfigError(
            "--drivelm FILE asks about the pictures in --images DIR; give both. See docs/drivelm.md for where they are"
        )
    if (options.object_form or options.drivelm_hint is not None) and not options.drivelm:
        raise ConfigError(
            "--object-form and --drivelm-hint say how to ask --drivelm FILE; give that, or leave them out"
        )
    if options.object_form == STITCHED_FORM and not options.stitch_views:
        raise ConfigError(
            "--object-form stitched writes objects in thousandths of the stitched picture; give --stitch-views with it"
        )
    if options.drivelm and (options.table or options.view_selection or options.token_selection or options.precisions):
        raise ConfigError(
            "--drivelm is an evaluation of its own; leave out --table, --view-selection, --token-selection and "
            "--precisions"
        )


def _check_writable(option: str, file: Path) -> None:
    """Raises ConfigError for a file that cannot be written, before minutes of work rather than after."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a").close()
    except OSError as error:
        raise ConfigError(
            f"--{option}: cannot write {file} ({error.strerror}). Name a file that can be written"
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("evaluate", __doc__)
    model = parser.add_argument_group("model")
    add_model_option(model)
    add_backend_options(model)
    add_loaded_precision_options(model)
    add_decode_option(model)
    model.add_argument(
        "--max-tiles", type=int, default=1, metavar="N", help="tiles that a view is cut into (%(default)s)"
    )
    model.add_argument(
        "--stitch-views", action="store_true", help="show all views as one picture, to models that were trained so"
    )
    work = parser.add_argument_group("scenes")
    work.add_argument("--scenes", type=int, default=500, metavar="N", help="number of scenes (%(default)s)")
    work.add_argument("--seed", type=int, default=0, metavar="S", help="other scenes for each S (%(default)s)")
    work.add_argument(
        "--view-selection",
        action="store_true",
        help="examine the choice of views by the question instead: views kept, and accuracy lost",
    )
    work.add_argument(
        "--token-selection",
        metavar="METHOD,...",
        help="examine these methods (random, diversity, similarity, scorer) instead: accuracy lost on six views",
    )
    work.add_argument(
        "--token-budgets", default="0.5", metavar="SHARE,...", help="shares of the visual tokens kept (%(default)s)"
    )
    work.add_argument(
        "--precisions",
        metavar="P,...",
        help="compare these (fp16, fp8, int8, int4) with fp32 on the same questions: engines with --backend tensorrt, "
        "else the graphs that engines are built from, on the CPU",
    )
    table = parser.add_argument_group("table", "the paper's table: what each part of the pipeline saves and costs")
    table.add_argument("--table", action="store_true", help="make the table instead of the evaluation")
    table.add_argument(
        "--questions", type=int, default=2000, metavar="N", help="number of questions about six views (%(default)s)"
    )
    table.add_argument(
        "--latency-questions",
        type=int,
        default=130,
        metavar="N",
        help="number of these that are timed; 0: none (%(default)s)",
    )
    table.add_argument(
        "--latency-model", type=Path, metavar="DIR", help="time this model instead, giving the same answers"
    )
    table.add_argument(
        "--accuracy-from", type=Path, metavar="FILE", help="take accuracy from --json of an earlier table"
    )
    table.add_argument(
        "--compare-transformers",
        action="store_true",
        help="add a row for transformers with a static cache and torch.compile, on this GPU",
    )
    table.add_argument(
        "--fresh", action="store_true", help="measure all rows anew, also those that the file of --json has"
    )
    table.add_argument(
        "--with-views",
        choices=VIEW_SELECTIONS[1:],
        help=f"view selection, also of --drivelm (table: {Parts.view_selection}, DriveLM: lexical)",
    )
    table.add_argument(
        "--with-tokens",
        choices=TOKEN_SELECTIONS[1:],
        default=Parts.token_selection,
        help="token selection (%(default)s)",
    )
    table.add_argument(
        "--keep", type=float, default=Parts.keep, metavar="S", help="share of visual tokens kept (%(default)s)"
    )
    table.add_argument(
        "--with-drafts", choices=SPECULATIONS[1:], default=Parts.speculation, help="source of drafts (%(default)s)"
    )
    table.add_argument(
        "--fp8",
        default="/".join(Parts.precisions),
        metavar="V/T",
        help="vision/text precisions of the last row (%(default)s)",
    )
    drivelm = parser.add_argument_group("DriveLM", "accuracy and match as its challenge scores them, on data of yours")
    drivelm.add_argument(
        "--drivelm", type=Path, metavar="FILE", help="ask the questions of this file, in the form of test_eval.json"
    )
    drivelm.add_argument("--images", type=Path, metavar="DIR", help="folder with the pictures of nuScenes")
    drivelm.add_argument(
        "--drivelm-questions",
        type=int,
        default=0,
        metavar="N",
        help="number of questions, from as many scenes as possible; 0: all (%(default)s)",
    )
    drivelm.add_argument(
        "--object-form",
        choices=OBJECT_FORMS,
        help="how the model was taught to write objects: in pixels of a camera's picture as the file does, or in "
        f"thousandths of the stitched picture (with --stitch-views: {STITCHED_FORM}, else {SOURCE_FORM})",
    )
    drivelm.add_argument(
        "--drivelm-hint",
        metavar="TEXT",
        help=f"put this behind each question; '' puts nothing (with --object-form {STITCHED_FORM}: the words of "
        "Mini-InternVL2-DA-DriveLM's training, else nothing)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--json", type=Path, metavar="FILE", help="write all figures and replies there too; --table goes on from it"
    )
    output.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    output.add_argument("--chart", type=Path, metavar="FILE", help="draw the table as a PNG")
    return parser


if __name__ == "__main__":
    sys.exit(main())
