"""What checking a draft costs on this machine, and how often drafts must be right for that to pay."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from litevlm_ros.evaluation.speculation import FRAMES, DecodeRates, caption_course
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.runtime.engine import TextDecoder
from litevlm_ros.text.draft_policy import SIZES

_WARM_UP = 3
_STEPS = 32


@dataclass(frozen=True)
class Verification:
    """One call that reads the answer's last token and a draft."""

    tokens: int
    """All that it reads."""
    ms: float
    step_ms: float
    """A plain step's."""

    @property
    def steps(self) -> float:
        """Its cost in plain steps."""
        return self.ms / self.step_ms

    @property
    def break_even(self) -> float | None:
        """The share of drafted tokens that must be right for it to be as fast as plain steps; None if none suffices."""
        if self.steps > self.tokens:
            return None
        shares = np.linspace(0, 1, 1001)
        expected = sum(shares**place for place in range(self.tokens))
        return float(shares[np.argmax(expected >= self.steps)])


def time_verification(text: TextDecoder, context: int, vocab_size: int, runs: int) -> list[Verification]:
    """Medians of each size behind `context` tokens, which are words without sense. Raises EngineError."""
    words = np.random.default_rng(0).integers(0, vocab_size, context + SIZES[-1])
    text.cache.truncate(0)
    text.forward(words[:context], np.arange(context))

    def steps() -> None:
        text.cache.truncate(context)
        for _ in text.decode_greedy(int(words[context]), context, _STEPS):
            pass

    step_ms = _median_ms(steps, runs) / _STEPS
    sizes = [size for size in SIZES if size <= text.most_logits]
    text.prepare(sizes)
    results = []
    for size in sizes:

        def verify(size: int = size) -> None:
            text.cache.truncate(context)
            text.forward(words[context : context + size], context + np.arange(size), num_logits=size)

        results.append(Verification(size, _median_ms(verify, runs), step_ms))
    return results


def compare_captions(plain: Pipeline, speculating: Pipeline, scenes: int) -> dict[str, Any]:
    """The same captions by both, as `caption_course` shows them: their rates, and how many texts differ."""
    answers = {"plain": list(caption_course(plain, scenes)), "speculating": list(caption_course(speculating, scenes))}
    different = sum(one.text != other.text for one, other in zip(*answers.values(), strict=True))
    rates = {way: asdict(DecodeRates.of(given)) for way, given in answers.items()}
    return {"scenes": scenes, "frames_of_each": FRAMES, **rates, "different": different}


def verification_table(results: Sequence[Verification]) -> str:
    """For people."""
    lines = [f"plain step {results[0].step_ms:.3f} ms", "tokens      ms  in steps  break-even acceptance"]
    for each in results:
        share = "never" if each.break_even is None else f"{each.break_even:.2f}"
        lines.append(f"{each.tokens:6}{each.ms:8.3f}{each.steps:10.2f}{share:>23}")
    return "\n".join(lines)


def captions_table(compared: Mapping[str, Any]) -> str:
    """For people."""
    plain, ours = compared["plain"], compared["speculating"]
    return (
        f"{ours['answers']} captions, each scene for {compared['frames_of_each']} frames; "
        f"{compared['different']} differ\n"
        f"ms/token: plain {plain['ms_per_token']:.3f}, speculating {ours['ms_per_token']:.3f} "
        f"({plain['ms_per_token'] / ours['ms_per_token']:.2f}x); {ours['tokens_per_verification']:.1f} tokens a "
        f"verification, {ours['acceptance']:.0%} of {ours['drafted']} drafted tokens accepted"
    )


def _median_ms(work: Callable[[], object], runs: int) -> float:
    times = []
    for _ in range(_WARM_UP + runs):
        started = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times[_WARM_UP:])
