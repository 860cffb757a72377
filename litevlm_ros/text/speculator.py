"""Greedy decoding that guesses several tokens and has the decoder check them in one call (arXiv 2211.17192).

The answer is the plain one: a guess counts only where it is what the decoder says anyway, and the rows of wrong ones
are cut from the cache. What can differ is rounding: a token that is read among others has logits that differ in the
last bits from the same token read alone, so two tokens whose logits are equal up to that may change places.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np

from litevlm_ros.backend import DecoderOutput, HiddenState, TextDecoder
from litevlm_ros.errors import ConfigError
from litevlm_ros.text.draft_policy import DraftPolicy, RunningRate
from litevlm_ros.text.drafts import DraftSource, Offer
from litevlm_ros.types import Speculation


class Speculator:
    """Decodes the answers of one decoder, and learns on which drafts it pays."""

    def __init__(
        self,
        text: TextDecoder,
        source: DraftSource,
        most_tokens: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """At most `most_tokens` are drafted at a time, and no more than `text` can verify.

        A `source` that reads hidden states needs a `text` that gives them. Raises ConfigError if no draft can be
        verified, and EngineError.
        """
        if text.most_logits < 2:
            raise ConfigError(
                "speculation is on, but the text decoder gives logits of one token at a time, so it cannot check a "
                "draft; set speculation to off, or build its engine again"
            )
        self.source = source
        self._text = text
        self._clock = clock
        self._policy = DraftPolicy(min(most_tokens, text.most_logits - 1))
        self._acceptance = RunningRate()
        self._counts = Speculation()
        text.prepare(self._policy.sizes)

    def begin(self, prompt: Sequence[int], topic: Hashable) -> None:
        """An answer starts; see `DraftSource.begin`. `start` gives its first token."""
        self.source.begin(prompt, topic)
        self._counts = Speculation(acceptance=self._acceptance.rate)

    def finish(self, complete: bool) -> Speculation:
        """The answer ended, by itself or from outside. What drafting did for it."""
        if complete:
            self.source.remember()
        return self._counts

    def start(self, output: DecoderOutput) -> int:
        """The answer's first token, from what the decoder found out about its prompt."""
        token = int(output.next_tokens[-1])
        self.source.add(token, output.hidden()[-1] if self.source.reads_hidden else None)
        return token

    def decode(self, token: int, position: int, limit: int) -> Iterator[int]:
        """Like `TextDecoder.decode_greedy`, but the cache may hold tokens beyond the one that was given last.

        `source` knows the answer up to `token`, and is given the rest from here. Raises EngineError.
        """
        end = position + limit
        stretch, ahead = 1, 0
        plain: Iterator[int] = iter(())
        while position < end:
            given: Sequence[tuple[int, HiddenState | None]]
            draft = self._choose(end - position - 1, ahead > 0)
            if draft.most:
                given = self._verify(token, position, draft, ahead > 0)
                stretch, ahead = 1, 0
            elif self.source.reads_hidden and self._policy.pays:
                given = self._read(token, position)
                ahead = 0  # what runs ahead knows nothing of this token
            else:
                if not ahead:
                    # A backend runs ahead within a stretch, and a draft that comes in the middle has to wait for that.
                    # Right behind a wrong guess the next one is often near, so stretches begin short.
                    ahead = min(stretch, end - position) if self._policy.pays else end - position
                    plain = self._text.decode_greedy(token, position, ahead)
                    stretch *= 2
                given = self._step(plain)
                ahead -= 1
            for token, hidden in given:
                self.source.add(token, hidden)
                position += 1
                yield token

    def _choose(self, room: int, interrupts: bool) -> Offer:
        """What is worth drafting and verifying now."""
        offer = self.source.offer()
        offer = Offer(min(offer.most, room, self._policy.sizes[-1] - 1), offer.kind)
        return Offer(self._policy.length(offer, interrupts), offer.kind)

    def _step(self, plain: Iterator[int]) -> Sequence[tuple[int, HiddenState | None]]:
        started = self._clock()
        token = next(plain)
        self._policy.stepped(self._clock() - started)
        return [(token, None)]

    def _read(self, token: int, position: int) -> Sequence[tuple[int, HiddenState | None]]:
        """A plain step whose hidden state is kept where the source reads it."""
        started = self._clock()
        output = self._text.forward(np.array([token]), np.array([position]))
        self._policy.stepped(self._clock() - started)
        return [(int(output.next_tokens[0]), output.hidden()[0] if self.source.reads_hidden else None)]

    def _verify(
        self, token: int, position: int, draft: Offer, interrupts: bool
    ) -> Sequence[tuple[int, HiddenState | None]]:
        """The draft as far as it is right, and the token behind that; a plain step where nothing is drafted."""
        started = self._clock()
        guesses = self.source.draft(draft.most)
        drafted = self._clock()
        if not guesses:
            self._policy.drafted_nothing(draft.kind, drafted - started)
            return self._read(token, position)
        draft = Offer(len(guesses), draft.kind)
        length, count = self._text.cache.length, 1 + draft.most
        output = self._text.forward(np.array([token, *guesses]), position + np.arange(count), num_logits=count)
        found = output.next_tokens.tolist()
        accepted = next((place for place, guess in enumerate(guesses) if guess != found[place]), draft.most)
        self._text.cache.truncate(length + 1 + accepted)
        self._policy.verified(draft, accepted, interrupts, drafted - started, self._clock() - drafted)
        self._count(draft.most, accepted)
        hidden = output.hidden() if self.source.reads_hidden else [None] * count
        return list(zip(found[: accepted + 1], hidden, strict=False))

    def _count(self, drafted: int, accepted: int) -> None:
        self._acceptance.add(accepted, drafted)
        counts = self._counts
        self._counts = Speculation(
            drafted=counts.drafted + drafted,
            accepted=counts.accepted + accepted,
            verifications=counts.verifications + 1,
            acceptance=self._acceptance.rate,
        )
