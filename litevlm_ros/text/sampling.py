"""Chooses the next token from logits: greedy, temperature, top-k, top-p and repetition penalty."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from litevlm_ros.backend import DecoderOutput, TextDecoder
from litevlm_ros.config import SamplingConfig

Row = npt.NDArray[np.float32]
"""float32 [V]: the logits of one token."""


class Sampler:
    """Draws the tokens of one answer; the same settings, seed and logits give the same tokens."""

    def __init__(self, config: SamplingConfig) -> None:
        self._config = config
        self._random = np.random.default_rng(config.seed)

    def draw(self, logits: Row, generated: Sequence[int]) -> int:
        """Returns the next token. The repetition penalty applies to the tokens in `generated`, the answer so far."""
        config = self._config
        if config.repetition_penalty != 1:
            logits = _penalise(logits, generated, config.repetition_penalty)
        if config.temperature == 0:
            return int(logits.argmax())
        tokens, probabilities = candidates(logits, config)
        # The inverse of the cumulative distribution takes one uniform number per token, whatever the limits are.
        drawn = np.searchsorted(probabilities.cumsum(), self._random.random(), side="right")
        return int(tokens[min(int(drawn), len(tokens) - 1)])

    def decode(self, text: TextDecoder, output: DecoderOutput, position: int, said: Sequence[int]) -> Iterator[int]:
        """Yields one token after the other, without an end; `text` reads each when the next is asked for.

        `output` is the decoder's output for the prompt, and `position` that of the first token. `said` holds the
        answer's tokens so far: the caller appends each one. Raises EngineError.
        """
        for place in itertools.count(position):
            token = self.draw(output.logits()[-1], said)
            yield token
            output = text.forward(np.array([token]), np.array([place]))


def candidates(logits: Row, config: SamplingConfig) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Returns the tokens that may be drawn, the likeliest first, and their probabilities, which add up to 1.

    The token with which the sum of probabilities reaches `top_p` is still among them, so there is at least one.
    """
    keep = min(config.top_k, len(logits)) or len(logits)
    top = np.argpartition(logits, -keep)[-keep:] if keep < len(logits) else np.arange(len(logits))
    order = top[np.argsort(-logits[top], kind="stable")]
    scaled = logits[order].astype(np.float64) - float(logits[order[0]])
    weights = np.exp(scaled / config.temperature)
    probabilities = weights / weights.sum()
    if config.top_p < 1:
        count = int(np.searchsorted(probabilities.cumsum(), config.top_p)) + 1
        order, probabilities = order[:count], probabilities[:count] / probabilities[:count].sum()
    return order, probabilities


def _penalise(logits: Row, tokens: Sequence[int], penalty: float) -> Row:
    penalised = logits.copy()
    seen = np.unique(np.asarray(tokens, np.int64))
    penalised[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
    return penalised
