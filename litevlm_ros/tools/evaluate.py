"""Examine a model on street scenes that training never drew: how many answers are right, how much of captions is true.

ros2 run litevlm_ros evaluate --json evaluation.json
ros2 run litevlm_ros evaluate --view-selection
ros2 run litevlm_ros evaluate --table --json table.json --chart table.png
ros2 run litevlm_ros evaluate --precisions fp16,fp8,int8,int4 --scenes 125
ros2 run litevlm_ros evaluate --token-selection random,diversity,similarity,scorer --token-budgets 0.5,0.25 --scenes 170

Half of the scenes have combinations that training leaves out. The same questions are answered by two baselines: by the
commonest answer to each kind of question in training, and by the model when every view is black.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from litevlm_ros.config import BACKENDS, SPECULATIONS, TOKEN_SELECTIONS, VIEW_SELECTIONS, PipelineConfig
from litevlm_ros.errors import ConfigError, LiteVLMError
from litevlm_ros.lab.evaluation.evaluation import evaluate
from litevlm_ros.lab.evaluation.exercises import held_out_exercises
from litevlm_ros.lab.evaluation.make_table import TableRun, make_table
from litevlm_ros.lab.evaluation.precisions import examine_precisions, precision_json, precision_table
from litevlm_ros.lab.evaluation.report import to_json, to_table
from litevlm_ros.lab.evaluation.table_rows import Parts
from litevlm_ros.lab.evaluation.token_choice import examine_tokens, tokens_json, tokens_table
from litevlm_ros.lab.evaluation.view_choice import choice_table, examine_choice
from litevlm_ros.machine import describe
from litevlm_ros.model_directory import VIEW_SELECTOR_GRAPH, demo_model_directory
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.precision import PRECISION_CHOICES, PRECISIONS, parse_precision_pair
from litevlm_ros.vision.learned_view_selection import LearnedSelector
from litevlm_ros.vision.view_selection import LexicalSelector, ViewSelector


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 after an error that it has explained on stderr."""
    options = _parser().parse_args(argv)
    try:
        _run(options)
    except LiteVLMError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    for output in ("json", "markdown", "chart"):
        if getattr(options, output):
            _check_writable(output, getattr(options, output))
    model = options.model or demo_model_directory()
    config = PipelineConfig(
        model_dir=model,
        backend=options.backend,
        vision_precision=options.vision_precision,
        text_precision=options.text_precision,
        threads=options.threads,
    )
    if options.table:
        return _make_table(options, config)
    if options.precisions:
        return _compare_precisions(options, config)
    pipeline = Pipeline.from_config(config)
    if options.view_selection:
        return _choose_views(options, pipeline, model)
    if options.token_selection:
        return _choose_tokens(options, pipeline, model)
    evaluation = evaluate(pipeline, options.seed, options.scenes, _note)
    host = describe()
    report = {"describe": host, "model": str(model), "backend": pipeline.backend.description, **to_json(evaluation)}
    first, last = report["seeds"]["evaluated"]
    times = report["mean_ms"]
    print(f"{host['cpu']}, {host['cores']} cores; {report['backend']}")
    print(f"{model}: {report['scenes']} scenes, seeds {first} to {last}; {report['seconds']:.0f} s with the baselines")
    print(
        f"mean ms: encoding one view {times['encoding_one_view']:.1f}, six views {times['encoding_six_views']:.1f}; "
        f"then a caption {times['caption']:.1f}, a short answer {times['short_answer']:.1f}"
    )
    print(f"\n{to_table(evaluation)}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _choose_views(options: argparse.Namespace, pipeline: Pipeline, model: Path) -> None:
    selectors: dict[str, ViewSelector] = {"lexical": LexicalSelector()}
    if (model / VIEW_SELECTOR_GRAPH).is_file():
        selectors["learned"] = LearnedSelector(model / VIEW_SELECTOR_GRAPH, LexicalSelector())
    choices = examine_choice(pipeline, selectors, held_out_exercises(options.seed, options.scenes))
    host = describe()
    print(f"{host['cpu']}, {host['cores']} cores; {pipeline.backend.description}")
    print(f"{model}: {options.scenes} scenes; views chosen by the question\n\n{choice_table(choices)}")
    if options.json:
        figures = {
            name: {"views_kept": choice.mean_views, "ms_to_choose": choice.mean_select_ms, **asdict(choice)}
            for name, choice in choices.items()
        }
        report = {"describe": host, "model": str(model), "selectors": figures}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _choose_tokens(options: argparse.Namespace, pipeline: Pipeline, model: Path) -> None:
    methods = options.token_selection.split(",")
    try:
        budgets = [float(budget) for budget in options.token_budgets.split(",")]
    except ValueError:
        raise ConfigError(
            f"--token-budgets is {options.token_budgets!r}; allowed: shares above 0, at most 1, with commas. Use 0.5"
        ) from None
    exercises = held_out_exercises(options.seed, options.scenes)
    choices = examine_tokens(
        pipeline, methods, budgets, exercises, lambda line: print(line, file=sys.stderr, flush=True)
    )
    host = describe()
    print(f"{host['cpu']}, {host['cores']} cores; {pipeline.backend.description}")
    print(
        f"{model}: {options.scenes} scenes of six views, {len(choices[0].right)} questions\n\n{tokens_table(choices)}"
    )
    if options.json:
        report = {"describe": host, "model": str(model), "settings": tokens_json(choices)}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _compare_precisions(options: argparse.Namespace, config: PipelineConfig) -> None:
    precisions = options.precisions.split(",")
    for precision in precisions:
        if precision not in PRECISIONS:
            raise ConfigError(f"--precisions has {precision!r}; allowed: {', '.join(PRECISIONS)}, with commas")
    exercises = list(held_out_exercises(options.seed, options.scenes))
    results = examine_precisions(config, precisions, exercises, _note)
    host = describe()
    print(f"{host['cpu']}, {host['cores']} cores; {config.model_dir}, {options.scenes} scenes")
    print(precision_table(results))
    if options.json:
        report = {"describe": host, "model": str(config.model_dir), "precisions": precision_json(results)}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _make_table(options: argparse.Namespace, config: PipelineConfig) -> None:
    run = TableRun(
        base=config,
        parts=Parts(
            options.with_views,
            options.with_tokens,
            options.keep,
            options.with_drafts,
            parse_precision_pair("--fp8", options.fp8),
        ),
        seed=options.seed,
        questions=options.questions,
        latency_questions=options.latency_questions,
        latency_model=options.latency_model,
        accuracy_from=options.accuracy_from,
    )
    table, report = make_table(run, _note)
    print(table.markdown())
    if options.json:
        options.json.write_text(json.dumps({"describe": describe(), **report}, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(table.markdown() + "\n", encoding="utf-8")
    if options.chart:
        try:
            from litevlm_ros.lab.evaluation.table_chart import draw_table
        except ImportError as error:
            raise ConfigError(f"--chart needs matplotlib ({error}): `pip install matplotlib`") from error
        draw_table(table, options.chart)


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _check_writable(option: str, file: Path) -> None:
    """Now rather than after minutes of work."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a").close()
    except OSError as error:
        raise ConfigError(
            f"--{option}: cannot write {file} ({error.strerror}). Name a file that can be written"
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_argument_group("model")
    model.add_argument("--model", type=Path, metavar="DIR", help="directory (default: the demo model)")
    model.add_argument("--backend", choices=BACKENDS, default="auto", help="what runs it (%(default)s)")
    for part in ("vision", "text"):
        model.add_argument(
            f"--{part}-precision", choices=PRECISION_CHOICES, default="auto", help="of engine or graph (%(default)s)"
        )
    model.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads (default: one for each core)")
    work = parser.add_argument_group("scenes")
    work.add_argument("--scenes", type=int, default=500, metavar="N", help="how many (%(default)s)")
    work.add_argument("--seed", type=int, default=0, metavar="S", help="other scenes for each S (%(default)s)")
    work.add_argument(
        "--view-selection", action="store_true", help="what choosing views by the question keeps and costs"
    )
    work.add_argument(
        "--token-selection",
        metavar="METHOD,...",
        help="what these (random, diversity, similarity, scorer) lose of the answers about six views",
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
    table = parser.add_argument_group("table", "the paper's: what each part of the pipeline saves and costs")
    table.add_argument("--table", action="store_true", help="make it, instead of the evaluation")
    table.add_argument("--questions", type=int, default=2000, metavar="N", help="about six views (%(default)s)")
    table.add_argument(
        "--latency-questions", type=int, default=130, metavar="N", help="of these are timed; 0: none (%(default)s)"
    )
    table.add_argument("--latency-model", type=Path, metavar="DIR", help="time this model instead, saying the same")
    table.add_argument("--accuracy-from", type=Path, metavar="FILE", help="--json of an earlier table: time only")
    table.add_argument(
        "--with-views", choices=VIEW_SELECTIONS[1:], default=Parts.view_selection, help="view selection (%(default)s)"
    )
    table.add_argument(
        "--with-tokens",
        choices=TOKEN_SELECTIONS[1:],
        default=Parts.token_selection,
        help="token selection (%(default)s)",
    )
    table.add_argument("--keep", type=float, default=Parts.keep, metavar="S", help="share of tokens (%(default)s)")
    table.add_argument(
        "--with-drafts", choices=SPECULATIONS[1:], default=Parts.speculation, help="drafts' source (%(default)s)"
    )
    table.add_argument(
        "--fp8", default="/".join(Parts.precisions), metavar="V/T", help="vision/text in the last row (%(default)s)"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write all figures and the wrong replies there too")
    output.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    output.add_argument("--chart", type=Path, metavar="FILE", help="draw the table as a PNG")
    return parser


if __name__ == "__main__":
    sys.exit(main())
