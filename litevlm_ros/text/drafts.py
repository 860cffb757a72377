"""Sources of drafts, which are cheap guesses at the next tokens, and the one that looks n-grams up."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from litevlm_ros.backend import HiddenState
from litevlm_ros.config import MOST_DRAFT_TOKENS
from litevlm_ros.text.topics import Topics

LONGEST_MATCH = 4
"""The most tokens that a lookup compares. Longer matches are not told apart."""


@dataclass(frozen=True)
class Offer:
    """An offer to draft up to `most` tokens; 0 if the source has no guess.

    `kind` groups drafts that are about equally trustworthy. The acceptance of each kind is measured on its own. `guess`
    is the first token of the draft if it is known before drafting, so that a plain step shows whether it is right.
    """

    most: int = 0
    kind: int = 0
    guess: int | None = None


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
        self._previous = Topics[list[int]](list)
        self._offered: Sequence[int] = ()
        self._begin((), None)

    def begin(self, prompt: Sequence[int], topic: Hashable) -> None:
        """See `DraftSource.begin`."""
        self._begin(prompt, topic)

    def add(self, token: int, hidden: HiddenState | None) -> None:
        """See `DraftSource.add`."""
        self._tokens.append(token)

    def offer(self) -> Offer:
        """See `DraftSource.offer`."""
        (length, place), text = _last_match(self._tokens, self._answer), self._answer
        if length < LONGEST_MATCH:
            own_length, own_place = _last_match(self._tokens, self._tokens)
            if own_length > length:
                length, place, text = own_length, own_place, self._tokens
        if not length:
            return Offer()
        self._offered = list(itertools.takewhile(self._goes_on, text[place : place + MOST_DRAFT_TOKENS]))
        return Offer(len(self._offered), length, self._offered[0] if self._offered else None)

    def draft(self, count: int) -> Sequence[int]:
        """See `DraftSource.draft`."""
        return self._offered[:count]

    def remember(self) -> None:
        """See `DraftSource.remember`."""
        # The prompt's last tokens are kept too, so that the first token of the next answer makes a long match.
        self._answer[:] = self._tokens[max(0, self._prompt_length - LONGEST_MATCH) :]

    def _goes_on(self, token: int) -> bool:
        return token not in self._stop_ids

    def _begin(self, prompt: Sequence[int], topic: Hashable) -> None:
        self._answer = self._previous.take(topic)
        self._prompt_length = len(prompt)
        self._tokens = list(prompt)


def _last_match(said: Sequence[int], text: list[int]) -> tuple[int, int]:
    """Looks up to LONGEST_MATCH last tokens of `said` up in `text`, where a token has to follow them.

    Returns how many of them were found, as many as possible, and the index of the token behind their last occurrence.
    There is no index, which would take longer to make than a short answer has time.
    """
    most = place = 0
    if not said:
        return most, place
    end = 0
    for _ in range(text[:-1].count(said[-1])):
        end = text.index(said[-1], end) + 1
        length = 1
        while length < min(LONGEST_MATCH, len(said), end) and said[-1 - length] == text[end - 1 - length]:
            length += 1
        if length >= most:
            most, place = length, end
    return most, place
