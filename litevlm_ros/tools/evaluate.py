"""Examine a model on street scenes that training never drew: how many answers are right, how much of captions is true.

ros2 run litevlm_ros evaluate --json evaluation.json
ros2 run litevlm_ros evaluate --precisions fp16,fp8,int8,int4 --scenes 125

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

from litevlm_ros.config import BACKENDS, PRECISIONS, PipelineConfig
from litevlm_ros.errors import ConfigError, LiteVLMError
from litevlm_ros.evaluation.evaluation import evaluate
from litevlm_ros.evaluation.exercises import held_out_exercises
from litevlm_ros.evaluation.precisions import examine_precisions, precision_json, precision_table
from litevlm_ros.evaluation.report import to_json, to_table
from litevlm_ros.evaluation.view_choice import choice_table, examine_choice
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.tools.benchmark import machine
from litevlm_ros.vision.learned_view_selection import LearnedSelector
from litevlm_ros.vision.view_selection import VIEW_SELECTOR_GRAPH, LexicalSelector, ViewSelector


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
    if options.json:
        _check_writable(options.json)
    model = options.model or demo_model_directory()
    config = PipelineConfig(
        model_dir=model,
        backend=options.backend,
        vision_precision=options.vision_precision,
        text_precision=options.text_precision,
        threads=options.threads,
    )
    if options.precisions:
        return _compare_precisions(options, config)
    pipeline = Pipeline.from_config(config)
    if options.view_selection:
        return _choose_views(options, pipeline, model)
    evaluation = evaluate(pipeline, options.seed, options.scenes, lambda line: print(line, file=sys.stderr, flush=True))
    host = machine()
    report = {"machine": host, "model": str(model), "backend": pipeline.backend.description, **to_json(evaluation)}
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
    host = machine()
    print(f"{host['cpu']}, {host['cores']} cores; {pipeline.backend.description}")
    print(f"{model}: {options.scenes} scenes; views chosen by the question\n\n{choice_table(choices)}")
    if options.json:
        figures = {
            name: {"views_kept": choice.mean_views, "ms_to_choose": choice.mean_select_ms, **asdict(choice)}
            for name, choice in choices.items()
        }
        report = {"machine": host, "model": str(model), "selectors": figures}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _compare_precisions(options: argparse.Namespace, config: PipelineConfig) -> None:
    precisions = options.precisions.split(",")
    for precision in precisions:
        if precision not in PRECISIONS[1:]:
            raise ConfigError(f"--precisions has {precision!r}; allowed: {', '.join(PRECISIONS[1:])}, with commas")
    exercises = list(held_out_exercises(options.seed, options.scenes))
    results = examine_precisions(config, precisions, exercises, lambda line: print(line, file=sys.stderr, flush=True))
    host = machine()
    print(f"{host['cpu']}, {host['cores']} cores; {config.model_dir}, {options.scenes} scenes")
    print(precision_table(results))
    if options.json:
        report = {"machine": host, "model": str(config.model_dir), "precisions": precision_json(results)}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _check_writable(file: Path) -> None:
    """Now rather than after minutes of work."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a").close()
    except OSError as error:
        raise ConfigError(f"--json: cannot write {file} ({error.strerror}). Name a file that can be written") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_argument_group("model")
    model.add_argument("--model", type=Path, metavar="DIR", help="directory (default: the demo model)")
    model.add_argument("--backend", choices=BACKENDS, default="auto", help="what runs it (%(default)s)")
    for part in ("vision", "text"):
        model.add_argument(
            f"--{part}-precision", choices=PRECISIONS, default="auto", help="of engine or graph (%(default)s)"
        )
    model.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads (default: one for each core)")
    work = parser.add_argument_group("scenes")
    work.add_argument("--scenes", type=int, default=500, metavar="N", help="how many (%(default)s)")
    work.add_argument("--seed", type=int, default=0, metavar="S", help="other scenes for each S (%(default)s)")
    work.add_argument(
        "--view-selection", action="store_true", help="what choosing views by the question keeps and costs"
    )
    work.add_argument(
        "--precisions",
        metavar="P,...",
        help="compare these (fp16, fp8, int8, int4) with fp32 on the same questions: engines with --backend tensorrt, "
        "else the graphs that engines are built from, on the CPU",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write all figures and the wrong replies there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
