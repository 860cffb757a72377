"""Where drafts come from: guesses at the next tokens that cost almost nothing to make."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from litevlm_ros.backend import HiddenState

LONGEST_MATCH = 4
"""Tokens of the text that a lookup compares; longer matches are not told apart."""

_MOST_TOPICS = 64


@dataclass(frozen=True)
class Offer:
    """A draft that can be had, of up to `most` tokens; 0 where there is no guess.

    `kind` groups drafts that are about equally trustworthy. Acceptance is measured for each kind on its own.
    """

    most: int = 0
    kind: int = 0


class DraftSource(Protocol):
    """Guesses how an answer goes on. An offer costs next to nothing; making the draft may take its time."""

    @property
    def reads_hidden(self) -> bool:
        """Whether it works on the decoder's hidden states."""

    def begin(self, prompt: Sequence[int], topic: Hashable) -> None:
        """An answer starts. `prompt` is its text without visual tokens; answers of one `topic` are often alike."""

    def add(self, token: int, hidden: HiddenState | None) -> None:
        """The answer goes on with this token, which may be the one that stops it.

        `hidden` is the state from which the decoder chose it, valid within this call; None where nobody asked for it.
        """

    def offer(self) -> Offer:
        """What could be drafted now."""

    def draft(self, count: int) -> Sequence[int]:
        """The first `count` tokens of what was offered last, or fewer where the guess is that the answer ends.

        The token that ends it is never drafted: a verification gives the token behind the draft anyway, and of what
        would come after the end there is no use. Raises EngineError.
        """

    def remember(self) -> None:
        """The answer is complete."""


class NGramDrafts:
    """Looks the last tokens up in the previous answer of the topic, in this answer and in its prompt.

    What followed them there is the draft: prompt lookup decoding (github.com/apoorvumang/prompt-lookup-decoding), with
    the caption that the same camera had before as a further text to look in. `Offer.kind` is the length of the match.
    """

    reads_hidden = False

    def __init__(self, stop_ids: Collection[int] = ()) -> None:
        """For answers that end with one of `stop_ids`."""
        self._stop_ids = stop_ids
        self._previous: OrderedDict[Hashable, tuple[int, ...]] = OrderedDict()
        self._offered: Sequence[int] = ()
        self._begin((), None)

    def begin(self, prompt: Sequence[int], topic: Hashable) -> None:
        """See `DraftSource.begin`."""
        self._begin(prompt, topic)

    def add(self, token: int, hidden: HiddenState | None) -> None:
        """See `DraftSource.add`."""
        self._text.add(token)

    def offer(self) -> Offer:
        """See `DraftSource.offer`."""
        said = self._text.tokens
        for length in range(min(LONGEST_MATCH, len(said)), 0, -1):
            gram = tuple(said[-length:])
            for text in (self._model, self._text):
                if (place := text.place_after(gram)) is not None:
                    self._offered = list(itertools.takewhile(self._goes_on, text.tokens[place:]))
                    return Offer(len(self._offered), length)
        return Offer()

    def draft(self, count: int) -> Sequence[int]:
        """See `DraftSource.draft`."""
        return self._offered[:count]

    def remember(self) -> None:
        """See `DraftSource.remember`."""
        # With the prompt's last tokens, the first token of the next answer is enough for a long match.
        self._previous[self._topic] = tuple(self._text.tokens[max(0, self._prompt_length - LONGEST_MATCH) :])
        self._previous.move_to_end(self._topic)
        if len(self._previous) > _MOST_TOPICS:
            self._previous.popitem(last=False)

    def _goes_on(self, token: int) -> bool:
        return token not in self._stop_ids

    def _begin(self, prompt: Sequence[int], topic: Hashable) -> None:
        self._topic = topic
        self._prompt_length = len(prompt)
        self._text = _Text(prompt)
        self._model = _Text(self._previous.get(topic, ()))


class _Text:
    """Tokens, and where each n-gram of them was last followed by something."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens: list[int] = []
        self._places: dict[tuple[int, ...], int] = {}
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        end = len(self.tokens)
        for length in range(1, min(LONGEST_MATCH, end) + 1):
            self._places[tuple(self.tokens[end - length :])] = end
        self.tokens.append(token)

    def place_after(self, gram: tuple[int, ...]) -> int | None:
        return self._places.get(gram)
