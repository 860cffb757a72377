"""A text decoder that says a given text and does the whole work of decoding it.

With it a model of another size, or one with random weights, is timed on the answers of another model: as many tokens,
and as many right drafts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from litevlm_ros.backend import DecoderOutput, HiddenStates, KVCache, Logits, TextDecoder, TokenIds, VisualTokens


@dataclass(frozen=True)
class _Replayed:
    """The output of the wrapped decoder with other next tokens."""

    found: DecoderOutput
    next_tokens: TokenIds

    def logits(self) -> Logits:
        """See `DecoderOutput.logits`."""
        return self.found.logits()

    def hidden(self) -> HiddenStates:
        """See `DecoderOutput.hidden`."""
        return self.found.hidden()


class ReplayingDecoder:
    """A `TextDecoder` around another one. `say` sets the answer to the next prompt."""

    def __init__(self, text: TextDecoder) -> None:
        self._text = text
        self._answer: Sequence[int] = ()
        self._start: int | None = None

    def say(self, answer: Sequence[int]) -> None:
        """Sets the tokens of the next answer. The last one, which should be a stop token, is repeated for ever."""
        self._answer, self._start = answer, None

    @property
    def cache(self) -> KVCache:
        """See `TextDecoder.cache`."""
        return self._text.cache

    @property
    def most_logits(self) -> int:
        """See `TextDecoder.most_logits`."""
        return self._text.most_logits

    @property
    def gives_hidden(self) -> bool:
        """See `TextDecoder.gives_hidden`."""
        return self._text.gives_hidden

    def prepare(self, counts: Sequence[int]) -> None:
        """See `TextDecoder.prepare`."""
        self._text.prepare(counts)

    def forward(
        self,
        input_ids: TokenIds,
        position_ids: TokenIds,
        visual_tokens: VisualTokens | None = None,
        num_logits: int = 1,
    ) -> DecoderOutput:
        """See `TextDecoder.forward`. The first call after `say` reads the prompt."""
        if self._start is None:
            self._start = int(position_ids[-1]) + 1
        found = self._text.forward(input_ids, position_ids, visual_tokens, num_logits)
        # Reading them waits until they are computed, as it does when they are what counts.
        replayed = np.array(found.next_tokens)
        replayed[:] = [self._after(int(position)) for position in position_ids[-num_logits:]]
        return _Replayed(found, replayed)

    def decode_greedy(self, token: int, position: int, limit: int) -> Iterator[int]:
        """See `TextDecoder.decode_greedy`."""
        for place, _ in enumerate(self._text.decode_greedy(token, position, limit), start=position):
            yield self._after(place)

    def _after(self, position: int) -> int:
        """Returns the answer's token that follows the one at `position`."""
        index = position + 1 - (self._start or 0)
        return self._answer[min(index, len(self._answer) - 1)]
