"""The cost of checking a draft on this machine, and the share of right tokens from which drafts pay."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from litevlm_ros.backend import TextDecoder
from litevlm_ros.lab.benchmarking.stages import median_ms
from litevlm_ros.text.draft_policy import SIZES

_STEPS = 32


@dataclass(frozen=True)
class Verification:
    """One call that reads the answer's last token and a draft, `tokens` in all, beside a plain step of one token."""

    tokens: int
    ms: float
    step_ms: float

    @property
    def steps(self) -> float:
        """The call's time in plain steps."""
        return self.ms / self.step_ms

    @property
    def break_even(self) -> float | None:
        """The share of right draft tokens at which the call is as fast as plain steps; None if no share suffices."""
        if self.steps > self.tokens:
            return None
        shares = np.linspace(0, 1, 1001)
        expected = sum(shares**place for place in range(self.tokens))
        return float(shares[np.argmax(expected >= self.steps)])


def time_verification(
    text: TextDecoder,
    context: int,
    vocab_size: int,
    runs: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Verification]:
    """Returns the medians of each draft size behind `context` random tokens. Raises EngineError."""
    words = np.random.default_rng(0).integers(0, vocab_size, context + SIZES[-1])
    text.cache.truncate(0)
    text.forward(words[:context], np.arange(context))

    def steps() -> None:
        text.cache.truncate(context)
        for _ in text.decode_greedy(int(words[context]), context, _STEPS):
            pass

    step_ms = median_ms(steps, runs, clock) / _STEPS
    sizes = [size for size in SIZES if size <= text.most_logits]
    text.prepare(sizes)
    results = []
    for size in sizes:

        def verify(size: int = size) -> None:
            text.cache.truncate(context)
            text.forward(words[context : context + size], context + np.arange(size), num_logits=size)

        results.append(Verification(size, median_ms(verify, runs, clock), step_ms))
    return results


def verification_table(results: Sequence[Verification]) -> str:
    """Returns a table in ms and in plain steps."""
    lines = [f"plain step {results[0].step_ms:.3f} ms", "tokens      ms  in steps  break-even acceptance"]
    for each in results:
        share = "never" if each.break_even is None else f"{each.break_even:.2f}"
        lines.append(f"{each.tokens:6}{each.ms:8.3f}{each.steps:10.2f}{share:>23}")
    return "\n".join(lines)
