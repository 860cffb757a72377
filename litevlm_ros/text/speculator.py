"""Speculative decoding: greedy decoding that drafts several tokens and verifies them in one call (arXiv 2211.17192).

The answer is that of plain decoding: a drafted token counts only if the decoder chooses the same, and the cache rows of
wrong ones are cut off. Only rounding can make a difference. The logits of a token that is read among others differ in
the last bits from those of the same token read alone, so two tokens whose logits are equal up to that may swap places.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from litevlm_ros.backend import DecoderOutput, HiddenState, TextDecoder
from litevlm_ros.errors import ConfigError, NotFiniteError
from litevlm_ros.text.draft_policy import DraftPolicy, RunningRate
from litevlm_ros.text.drafts import DraftSource, Offer
from litevlm_ros.types import Speculation


class Speculator:
    """Decodes the answers of one decoder with drafts, and learns which drafts pay."""

    def __init__(
        self,
        text: TextDecoder,
        source: DraftSource,
        most_tokens: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Drafts at most `most_tokens` tokens at a time, and no more than `text` can verify.

        A `source` that reads hidden states needs a `text` that gives them. `clock` returns seconds. Raises ConfigError
        if `text` cannot verify drafts, and EngineError.
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
        """Starts an answer; see `DraftSource.begin`."""
        self.source.begin(prompt, topic)
        self._policy.begin(topic)
        self._counts = Speculation(acceptance=self._acceptance.rate)

    def finish(self, complete: bool) -> Speculation:
        """Ends the answer, which is `complete` unless it was cancelled. Returns what drafting did for it."""
        if complete:
            self.source.remember()
        return self._counts

    def start(self, output: DecoderOutput) -> int:
        """Returns the first token of the answer. `output` is the decoder's output for the prompt."""
        token = int(output.next_tokens[-1])
        self.source.add(token, output.hidden()[-1] if self.source.reads_hidden else None)
        return token

    def decode(self, token: int, position: int, limit: int) -> Iterator[int]:
        """Yields the tokens that `TextDecoder.decode_greedy` yields. Raises EngineError.

        In contrast to that, the cache may hold tokens beyond the last one that was yielded. `source` knows the answer
        up to `token` and learns the rest from here.
        """
        end = position + limit
        stretch, ahead, resumes = limit, 0, False
        plain: Iterator[int] = iter(())
        # States are read from the first token on or not at all: what is drafted without the earlier ones is bad.
        reads = self.source.reads_hidden and self._policy.may_pay
        while position < end:
            given: Sequence[tuple[int, HiddenState | None]]
            pays = self._policy.pays
            # Where no draft would be used, a step comes first: the host looks drafts up while the backend runs ahead.
            offer = self._offer(end - position - 1) if pays else None
            length = self._policy.length(offer, ahead > 0) if offer else 0
            if offer and length:
                given = self._verify(token, position, replace(offer, most=length), ahead > 0)
                stretch, ahead, resumes = 1, 0, True
            else:
                if reads:
                    given = self._read(token, position)
                    ahead = 0  # steps that run ahead know nothing of this token
                else:
                    begins = not ahead
                    if begins:
                        ahead = min(stretch, end - position) if pays else end - position
                        plain = self._text.decode_greedy(token, position, ahead)
                        stretch *= 2
                    given = self._step(plain, begins and resumes)
                    ahead -= 1
                self._policy.watched(offer or self._offer(end - position), given[0][0])
            for token, hidden in given:
                self.source.add(token, hidden)
                position += 1
                yield token

    def _offer(self, room: int) -> Offer:
        """Returns what the source offers, as far as it can be verified in one call with `room` for more tokens."""
        offer = self.source.offer()
        return replace(offer, most=min(offer.most, room, self._policy.sizes[-1] - 1))

    def _step(self, plain: Iterator[int], resumes: bool) -> Sequence[tuple[int, HiddenState | None]]:
        started = self._clock()
        token = next(plain)
        self._policy.stepped(self._clock() - started, resumes)
        return [(token, None)]

    def _read(self, token: int, position: int) -> Sequence[tuple[int, HiddenState | None]]:
        """Takes a plain step by `forward`, which gives the hidden state if the source reads it."""
        started = self._clock()
        output = self._text.forward(np.array([token]), np.array([position]))
        self._policy.stepped(self._clock() - started)
        return [(int(output.next_tokens[0]), output.hidden()[0] if self.source.reads_hidden else None)]

    def _verify(
        self, token: int, position: int, draft: Offer, interrupts: bool
    ) -> Sequence[tuple[int, HiddenState | None]]:
        """Returns the draft as far as it is right, and the decoder's token behind that.

        Takes a plain step if the source drafts nothing.
        """
        started = self._clock()
        guesses = self.source.draft(draft.most)
        drafted = self._clock()
        if not guesses:
            self._policy.drafted_nothing(draft, drafted - started)
            return self._read(token, position)
        draft = replace(draft, most=len(guesses))
        length, count = self._text.cache.length, 1 + draft.most
        try:
            output = self._text.forward(np.array([token, *guesses]), position + np.arange(count), num_logits=count)
        except NotFiniteError:
            # A wrong guess, which plain decoding would never read, may be what overflows.
            self._policy.drafted_nothing(draft, drafted - started)
            return self._read(token, position)
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
