"""Plain decoding against each source of drafts: captions of a camera that watches a scene, and short answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from litevlm_ros.config import CAPTION_PROMPT, SPECULATIONS, PipelineConfig, SpeculationConfig
from litevlm_ros.lab.benchmarking.verification import time_verification, verification_table
from litevlm_ros.lab.world.exercises import CAPTION, held_out_exercises
from litevlm_ros.lab.world.render import render
from litevlm_ros.lab.world.scene import generate
from litevlm_ros.lab.world.splits import evaluation_seeds
from litevlm_ros.machine import describe
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.text.draft_sources import head_obstacle
from litevlm_ros.types import Answer, View

PLAIN = "off"

CAMERA = "front"
FRAMES = 4
SECONDS_BETWEEN_FRAMES = 1.0


@dataclass(frozen=True)
class DecodeRates:
    """Sums and means over some answers; shares and means are 0 where there is nothing to take them of.

    `ms_per_token` counts decoding behind the token that prefill gives; `ms_per_answer` the same with the token that
    ends the answer. `acceptance` is the share of drafted tokens that were right. `tokens_per_verification` is the mean
    number of tokens by which one call of the decoder that checked a draft extended the answer.
    """

    answers: int
    tokens: int
    ms_per_token: float
    ms_per_answer: float
    drafted: int
    acceptance: float
    tokens_per_verification: float

    @classmethod
    def of(cls, answers: Iterable[Answer]) -> DecodeRates:
        """Adds up the timings and counts of the answers."""
        given = list(answers)
        tokens = sum(answer.tokens.generated for answer in given)
        decoded = sum(max(0, answer.tokens.generated - 1) for answer in given)
        decode_ms = sum(answer.timings.decode for answer in given)
        drafted = sum(answer.speculation.drafted for answer in given)
        accepted = sum(answer.speculation.accepted for answer in given)
        verifications = sum(answer.speculation.verifications for answer in given)
        return cls(
            answers=len(given),
            tokens=tokens,
            ms_per_token=decode_ms / max(1, decoded),
            ms_per_answer=decode_ms / max(1, len(given)),
            drafted=drafted,
            acceptance=accepted / max(1, drafted),
            tokens_per_verification=(accepted + verifications) / verifications if verifications else 0.0,
        )


Rates = dict[str, tuple[DecodeRates, int]]
"""The rates of each pipeline by its name, and the number of its texts that differ from the first pipeline's."""

Course = Iterator[tuple[Sequence[View], Sequence[str]]]
"""Views, and the questions about them."""


def caption_course(scenes: int, frames: int = FRAMES, seed: int = 0, seconds: float = SECONDS_BETWEEN_FRAMES) -> Course:
    """Yields captions of one camera that sees each of `scenes` held-out scenes for `frames` frames.

    These are `seconds` apart; with 0, nothing moves.
    """
    for scene_seed in evaluation_seeds(scenes, seed):
        scene = generate(scene_seed)
        for frame in range(frames):
            image = render(scene, CAMERA, phase=frame * seconds)
            yield [View(CAMERA, image)], [CAPTION_PROMPT]


def short_answer_course(scenes: int, seed: int = 0) -> Course:
    """Yields short questions about one view and about all views of `scenes` held-out scenes."""
    for exercise in held_out_exercises(seed, scenes):
        yield exercise.views(), [question.text for question in exercise.questions if question.kind != CAPTION]


def follow(pipelines: Mapping[str, Pipeline], course: Course) -> Rates:
    """Puts each question to each pipeline in turn, so that other load on the machine slows all of them alike."""
    answers: dict[str, list[Answer]] = {name: [] for name in pipelines}
    for views, questions in course:
        for name, pipeline in pipelines.items():
            encoded = pipeline.encode(views)
            answers[name] += [pipeline.answer(encoded, question) for question in questions]
    first = next(iter(answers.values()))
    return {
        name: (DecodeRates.of(given), sum(a.text != b.text for a, b in zip(given, first, strict=True)))
        for name, given in answers.items()
    }


def load_sources(config: PipelineConfig) -> tuple[dict[str, Pipeline], str | None]:
    """Loads a pipeline for each value of `speculation`, plain decoding first.

    The second result says why those with a draft head are missing, if they are. Raises what `Pipeline.from_config`
    raises.
    """

    def load(source: str) -> Pipeline:
        return Pipeline.from_config(replace(config, speculation=SpeculationConfig(source)))

    plain = load(PLAIN)
    obstacle = head_obstacle(config, plain.backend.text)
    sources = [source for source in SPECULATIONS if source != PLAIN and (obstacle is None or source == "ngram")]
    return {PLAIN: plain, **{source: load(source) for source in sources}}, obstacle


def compare_sources(pipelines: Mapping[str, Pipeline], scenes: int) -> dict[str, Rates]:
    """Compares on captions of changing and of still scenes, and on short answers.

    Raises what `Pipeline.answer` raises.
    """
    courses = {
        "captions": caption_course(scenes),
        "captions of still scenes": caption_course(scenes, seconds=0.0),
        "short answers": short_answer_course(scenes),
    }
    return {name: follow(pipelines, course) for name, course in courses.items()}


def rates_table(compared: Mapping[str, Rates]) -> str:
    """Returns a table for each kind of work."""
    lines = []
    for work, rates_by_source in compared.items():
        plain, _ = rates_by_source[PLAIN]
        lines.append(f"{plain.answers} {work} of {plain.tokens / max(1, plain.answers):.1f} tokens on average")
        lines.append("source  ms/token  ms/answer  faster  drafted  accepted  tokens a verification  other texts")
        for source, (rates, different) in rates_by_source.items():
            faster = plain.ms_per_answer / rates.ms_per_answer if rates.ms_per_answer else 1.0
            lines.append(
                f"{source:6}{rates.ms_per_token:10.3f}{rates.ms_per_answer:11.2f}{faster:7.2f}x{rates.drafted:9}"
                f"{rates.acceptance:10.1%}{rates.tokens_per_verification:23.2f}{different:13}"
            )
    return "\n".join(lines)


def report_speculation(config: PipelineConfig, context: int, runs: int) -> tuple[str, dict[str, Any]]:
    """Times verifications behind `context` tokens, and compares all sources of drafts on `runs` scenes.

    Returns tables and their figures for JSON. Raises LiteVLMError.
    """
    pipelines, obstacle = load_sources(config)
    with ExitStack() as stack:
        for pipeline in pipelines.values():
            stack.callback(pipeline.close)
        plain = pipelines[PLAIN]
        backend = plain.backend.description
        costs = time_verification(plain.backend.text, context, plain.model.text.vocab_size, runs)
        compared = compare_sources(pipelines, runs)
    lines = [backend, verification_table(costs), rates_table(compared)]
    if obstacle:
        lines.append(f"no draft head: {obstacle}")
    figures = {
        work: {source: {**asdict(rates), "different": different} for source, (rates, different) in sources.items()}
        for work, sources in compared.items()
    }
    return "\n".join(lines), {
        "machine": describe(),
        "backend": backend,
        "context": context,
        "verifications": [asdict(cost) for cost in costs],
        "scenes": runs,
        **figures,
    }
