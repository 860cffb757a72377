"""Sources of drafts, which are cheap guesses at the next tokens, and the one that looks n-grams up."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from litevlm_ros.backend import HiddenState

LONGEST_MATCH = 4
"""The most tokens that a lookup compares. Longer matches are not told apart."""

_MOST_TOPICS = 64


@dataclass(frozen=True)
class Offer:
    """An offer to draft up to `most` tokens; 0 if the source has no guess.

    `kind` groups drafts that are about equally trustworthy. The acceptance of each kind is measured on its own.
    """

    most: int = 0
    kind: int = 0


class DraftSource(Protocol):
    """Guesses how an answer goes on. An offer costs next to nothing, while making the draft may take time."""

    @property
    def reads_hidden(self) -> bool:
        """True if the source needs the decoder's hidden states."""

    def begin(self, prompt: Sequence[int], topic: Hashable) -> None:
        """Starts an answer. `prompt` is its text without visual tokens. Answers of one `topic` are often alike."""

    def add(self, token: int, hidden: HiddenState | None) -> None:
        """Appends a token to the answer; it may be the one that stops the answer.

        `hidden` is the hidden state from which the decoder chose the token, or None if it was not computed. It is valid
        during this call only.
        """

    def offer(self) -> Offer:
        """Returns the draft that could be made now."""

    def draft(self, count: int) -> Sequence[int]:
        """Returns the first `count` tokens of the last offer, or fewer if the guess is that the answer ends there.

        The token that ends the answer is never drafted: a verification gives the token behind the draft anyway, and
        tokens behind the end are of no use. Raises EngineError.
        """

    def remember(self) -> None:
        """Ends an answer that is complete, from which the source may learn."""


class NGramDrafts:
    """Looks the last tokens up in the previous answer of the topic, in this answer and in its prompt.

    The draft is the text that followed them there. This is prompt lookup decoding
    (github.com/apoorvumang/prompt-lookup-decoding) with one more text to look in, such as the previous caption of the
    same camera. `Offer.kind` is the length of the match in tokens.
    """

    reads_hidden = False

    def __init__(self, stop_ids: Collection[int] = ()) -> None:
        """`stop_ids` are the tokens that end an answer; no draft goes beyond them."""
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
        # The prompt's last tokens are kept too, so that the first token of the next answer makes a long match.
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
    """A sequence of tokens, and an index of the places behind its n-grams."""

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
        """Returns the index of the token behind the last occurrence of `gram` that is followed by a token."""
        return self._places.get(gram)
