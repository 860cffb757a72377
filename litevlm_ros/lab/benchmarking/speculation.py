"""Plain decoding against each source of drafts, on the same questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from litevlm_ros.config import SPECULATIONS, PipelineConfig, SpeculationConfig
from litevlm_ros.lab.evaluation.speculation import Comparison, caption_course, follow, short_answer_course
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.text.draft_sources import head_obstacle

PLAIN = "off"


def load_sources(config: PipelineConfig) -> tuple[dict[str, Pipeline], str | None]:
    """A pipeline for each value of `speculation`, plain decoding first, and why those with a draft head are missing.

    Raises what `Pipeline.from_config` raises.
    """

    def load(source: str) -> Pipeline:
        return Pipeline.from_config(replace(config, speculation=SpeculationConfig(source)))

    plain = load(PLAIN)
    obstacle = head_obstacle(config, plain.backend.text)
    sources = [source for source in SPECULATIONS if source != PLAIN and (obstacle is None or source == "ngram")]
    return {PLAIN: plain, **{source: load(source) for source in sources}}, obstacle


def compare_sources(pipelines: Mapping[str, Pipeline], scenes: int) -> dict[str, Comparison]:
    """On captions of a changing scene, and on short answers. Raises what `Pipeline.answer` raises."""
    courses = {"captions": caption_course(scenes), "short answers": short_answer_course(scenes)}
    return {name: follow(pipelines, course) for name, course in courses.items()}


def comparison_table(compared: Mapping[str, Comparison]) -> str:
    """For people."""
    lines = []
    for work, comparison in compared.items():
        plain, _ = comparison[PLAIN]
        lines.append(f"{plain.answers} {work} of {plain.tokens / max(1, plain.answers):.1f} tokens on average")
        lines.append("source  ms/token  ms/answer  faster  drafted  accepted  tokens a verification  other texts")
        for source, (rates, different) in comparison.items():
            faster = plain.ms_per_answer / rates.ms_per_answer if rates.ms_per_answer else 1.0
            lines.append(
                f"{source:6}{rates.ms_per_token:10.3f}{rates.ms_per_answer:11.2f}{faster:7.2f}x{rates.drafted:9}{rates.acceptance:10.1%}"
                f"{rates.tokens_per_verification:23.2f}{different:13}"
            )
    return "\n".join(lines)


def comparison_json(compared: Mapping[str, Comparison]) -> dict[str, Any]:
    """For programs."""
    return {
        work: {source: {**asdict(rates), "different": different} for source, (rates, different) in comparison.items()}
        for work, comparison in compared.items()
    }
