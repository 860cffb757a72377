from __future__ import annotations

import itertools
import random
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pytest
from scripted_backend import ScriptedText

from litevlm_ros.errors import ConfigError, EngineError, NotFiniteError
from litevlm_ros.text.drafts import NGramDrafts, Offer
from litevlm_ros.text.speculator import Speculator
from litevlm_ros.types import Speculation

V = 50
PROMPT = [3, 4, 5, 6]


class Oracle:
    """Drafts that are right with some probability for each token."""

    reads_hidden = False

    def __init__(self, answer: Sequence[int], right: float, seed: int = 0) -> None:
        self.answer = answer
        self.said: list[int] = []
        self.remembered = False
        self._right = right
        self._random = random.Random(seed)

    def begin(self, prompt: Sequence[int], topic: Hashable) -> None:
        self.said = []

    def add(self, token: int, hidden: Any) -> None:
        assert hidden is None
        self.said.append(token)

    def offer(self) -> Offer:
        return Offer(len(self.answer) - len(self.said))

    def draft(self, count: int) -> list[int]:
        ahead = self.answer[len(self.said) :][:count]
        return [t if self._random.random() < self._right else (t + 1) % V for t in ahead]

    def remember(self) -> None:
        self.remembered = True


class Clock:
    """Seconds that pass while a decoder works: `step` for one token, `verification` for several."""

    def __init__(self, step: float = 1.0, verification: float = 1.0) -> None:
        self.now = 0.0
        self.step = step
        self.verification = verification

    def __call__(self) -> float:
        return self.now

    def pass_time(self, count: int) -> None:
        self.now += self.step if count == 1 else self.verification


def decoder(clock: Clock | None = None) -> tuple[ScriptedText, int]:
    """One that has read the prompt, and the first token of the answer."""
    text = ScriptedText(V, 500, range(10, V))
    first = text.forward(np.array(PROMPT), np.arange(len(PROMPT))).next_tokens[-1]
    text.counts.clear()
    if clock is not None:
        text.before_run = clock.pass_time
    return text, int(first)


def plain(limit: int) -> list[int]:
    text, first = decoder()
    return [first, *text.decode_greedy(first, len(PROMPT), limit)]


def answer(speculator: Speculator, first: int, limit: int) -> list[int]:
    speculator.begin(PROMPT, "topic")
    speculator.source.add(first, None)
    return [first, *speculator.decode(first, len(PROMPT), limit)]


def practise(speculator: Speculator, text: ScriptedText, first: int) -> None:
    """Takes so many plain steps that their share for wrong drafts suffices to try some."""
    for _ in range(4):
        answer(speculator, first, 60)
        text.cache.truncate(len(PROMPT))
    text.counts.clear()


def test_a_wrong_guess_that_overflows_costs_nothing_but_time() -> None:
    """Plain decoding would never read it, so the answer goes on without that draft."""
    limit = 40
    text, first = decoder()
    expected, refused = plain(limit), 0

    def overflow(count: int) -> None:
        nonlocal refused
        if count > 1:
            refused += 1
            raise NotFiniteError("beyond what fp16 holds")

    text.before_run = overflow
    speculator = Speculator(text, Oracle(expected, 0.8), 4, Clock())
    assert answer(speculator, first, limit) == expected
    assert refused
    assert speculator.finish(complete=True).drafted == 0


def test_a_token_of_the_answer_that_overflows_is_an_error() -> None:
    text, first = decoder()

    def overflow(count: int) -> None:
        raise NotFiniteError("beyond what fp16 holds")

    speculator = Speculator(text, Oracle(plain(9), 1.0), 4, Clock())
    text.before_run = overflow
    with pytest.raises(NotFiniteError, match="beyond what fp16 holds"):
        answer(speculator, first, 9)


@pytest.mark.parametrize("right", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("limit", [1, 2, 3, 17, 60])
def test_the_answer_is_the_plain_one_whatever_is_drafted(right: float, limit: int) -> None:
    expected = plain(limit)
    for most in (1, 3, 7, 15):
        clock = Clock()
        text, first = decoder(clock)
        speculator = Speculator(text, Oracle(plain(100), right, most), most, clock)
        for _ in range(3):  # also with what it has learnt
            text.cache.truncate(len(PROMPT))
            assert answer(speculator, first, limit) == expected
            # The cache has read all but the last token, at their positions, as if one by one.
            assert text.cache.length <= len(PROMPT) + limit
            assert [row[0] for row in text.cache.rows] == [*PROMPT, *expected][: text.cache.length]
            assert [row[1] for row in text.cache.rows] == list(range(text.cache.length))


class Reader(Oracle):
    """Checks that each state is the one from which its token was chosen: where its largest number is."""

    reads_hidden = True

    def add(self, token: int, hidden: Any) -> None:
        self.said.append(token)
        self.states.append(None if hidden is None else int(hidden.argmax()))

    def begin(self, prompt: Sequence[int], topic: Hashable) -> None:
        self.said, self.states = [], []


@pytest.mark.parametrize("right", [0.0, 0.6, 1.0])
def test_a_source_that_reads_states_gets_the_one_of_each_token_while_drafts_pay(right: float) -> None:
    clock = Clock(step=1.0, verification=1.2)
    text, _ = decoder(clock)
    text.gives_hidden = True
    source = Reader(plain(100), right)
    speculator = Speculator(text, source, 15, clock)
    known: list[int] = []
    for _ in range(12):
        text.cache.truncate(0)
        output = text.forward(np.array(PROMPT), np.arange(len(PROMPT)))
        speculator.begin(PROMPT, "topic")
        first = speculator.start(output)
        assert [first, *speculator.decode(first, len(PROMPT), 40)] == plain(40)
        assert source.said == plain(40)
        states = [state for state in source.states if state is not None]
        assert states == [t for t, state in zip(source.said, source.states, strict=True) if state is not None]
        known.append(len(states))
    assert known[0] == 41, "nobody knows yet whether drafts will pay"
    assert known[1] == 1, "no wrong draft is paid for yet, and plain decoding gives no states"
    if right == 0:
        assert known.count(1) >= 3
    elif right == 1:
        assert known[-9:] == [41] * 9


class Ending(Oracle):
    """Says that the answer ends, always."""

    def draft(self, count: int) -> list[int]:
        return []


class EndingReader(Reader):
    """As Ending."""

    draft = Ending.draft


@pytest.mark.parametrize("reads", [False, True])
def test_where_nothing_is_drafted_a_plain_step_is_taken(reads: bool) -> None:
    clock = Clock()
    text, first = decoder(clock)
    text.gives_hidden = reads
    source = (EndingReader if reads else Ending)(plain(100), 1.0)
    speculator = Speculator(text, source, 15, clock)
    for _ in range(3):
        text.cache.truncate(0)
        output = text.forward(np.array(PROMPT), np.arange(len(PROMPT)))
        speculator.begin(PROMPT, "topic")
        assert speculator.start(output) == first
        assert list(speculator.decode(first, len(PROMPT), 60)) == plain(60)[1:]
        assert speculator.finish(complete=True).drafted == 0


class Fickle:
    """A policy without reasons."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes
        self._random = random.Random(3)

    def length(self, offer: Offer, interrupts: bool) -> int:
        return min(offer.most, self._random.choice((0, 0, 0, 1, 3, 7)))

    @property
    def pays(self) -> bool:
        return self._random.random() < 0.5

    may_pay = pays

    def begin(self, *noted: Any) -> None:
        pass

    stepped = watched = verified = begin


@pytest.mark.parametrize("source", [Oracle, Reader])
def test_the_answer_is_the_plain_one_however_the_policy_changes_its_mind(source: type[Oracle]) -> None:
    text, first = decoder()
    text.gives_hidden = True
    speculator = Speculator(text, source(plain(100), 0.5), 15)
    policy: Any = Fickle((2, 4, 8, 16))
    speculator._policy = policy
    for _ in range(30):
        text.cache.truncate(len(PROMPT))
        assert answer(speculator, first, 60) == plain(60)


class Short(Oracle):
    """Drafts at most two tokens, whatever was offered."""

    def draft(self, count: int) -> list[int]:
        return super().draft(min(count, 2))


def test_a_draft_may_end_before_its_offer() -> None:
    clock = Clock()
    text, first = decoder(clock)
    speculator = Speculator(text, Short(plain(100), 1.0), 15, clock)
    practise(speculator, text, first)
    assert answer(speculator, first, 30) == plain(30)
    counts = speculator.finish(True)
    assert counts.drafted == counts.accepted == 20


def test_right_drafts_need_few_calls_and_are_counted() -> None:
    clock = Clock()
    text, first = decoder(clock)
    speculator = Speculator(text, Oracle(plain(100), 1.0), 15, clock)
    practise(speculator, text, first)
    answer(speculator, first, 48)
    assert text.counts == [16, 16, 16]
    assert speculator.finish(True) == Speculation(drafted=45, accepted=45, verifications=3, acceptance=1.0)


def test_wrong_drafts_are_given_up_for_plain_decoding_in_one_go() -> None:
    clock = Clock(step=1.0, verification=1.5)
    text, first = decoder(clock)
    speculator = Speculator(text, Oracle(plain(400), 0.0), 15, clock)
    answer(speculator, first, 100)
    stretches: list[int] = []
    decode_greedy = text.decode_greedy

    def spy(token: int, position: int, limit: int) -> object:
        stretches.append(limit)
        return decode_greedy(token, position, limit)

    text.decode_greedy = spy  # type: ignore[method-assign, assignment]
    text.cache.truncate(len(PROMPT))
    assert answer(speculator, first, 80) == plain(80)
    assert stretches in ([80], [79])
    assert speculator.finish(True).verifications <= 1, "a probe"


def test_dear_verification_turns_it_off_however_right_the_drafts_are() -> None:
    clock = Clock(step=1.0, verification=40.0)
    text, first = decoder(clock)
    speculator = Speculator(text, Oracle(plain(400), 1.0), 15, clock)
    for _ in range(30):
        text.cache.truncate(len(PROMPT))
        answer(speculator, first, 300)
    assert sum(count > 1 for count in text.counts) < 40, "of 9000 tokens"
    assert text.counts[-90:] == [1] * 90


def test_time_outside_the_decoder_does_not_count() -> None:
    clock = Clock(step=1.0, verification=3.0)
    text, first = decoder(clock)
    speculator = Speculator(text, Oracle(plain(400), 1.0), 15, clock)
    practise(speculator, text, first)
    speculator.begin(PROMPT, "topic")
    speculator.source.add(first, None)
    for _ in speculator.decode(first, len(PROMPT), 200):
        clock.now += 100.0  # the listener's
    assert speculator.finish(True).verifications >= 200 / 16 - 4


def test_no_room_is_left_unread_or_overrun() -> None:
    """The last tokens of a full cache."""
    clock = Clock()
    text, first = decoder(clock)
    text.cache.capacity = len(PROMPT) + 20
    speculator = Speculator(text, Oracle(plain(100), 1.0), 15, clock)
    assert answer(speculator, first, 20) == plain(20)


def test_dropping_it_in_the_middle_and_asking_again() -> None:
    clock = Clock()
    text, first = decoder(clock)
    speculator = Speculator(text, Oracle(plain(100), 0.7), 15, clock)
    expected = plain(50)
    for taken in range(1, 30):
        speculator.begin(PROMPT, "topic")
        speculator.source.add(first, None)
        assert list(itertools.islice(speculator.decode(first, len(PROMPT), 50), taken)) == expected[1 : taken + 1]
        text.cache.truncate(len(PROMPT))


def test_failures_pass_through_and_leave_the_cache_usable() -> None:
    clock = Clock()
    text, first = decoder(clock)
    speculator = Speculator(text, Oracle(plain(100), 1.0), 15, clock)
    answer(speculator, first, 5)
    text.cache.truncate(len(PROMPT))

    def fail(count: int) -> None:
        raise EngineError("gone")

    text.before_run = fail
    with pytest.raises(EngineError, match="gone"):
        answer(speculator, first, 9)
    text.before_run = clock.pass_time
    text.cache.truncate(len(PROMPT))
    assert answer(speculator, first, 9) == plain(9)


def test_the_decoder_is_prepared_for_the_sizes_that_it_can_verify() -> None:
    text, _ = decoder()
    Speculator(text, NGramDrafts(), 15)
    assert text.prepared == (2, 4, 8, 16)
    text.most_logits = 5
    Speculator(text, NGramDrafts(), 15)
    assert text.prepared == (2, 4)
    text.most_logits = 1
    with pytest.raises(ConfigError, match="set speculation to off, or build its engine again"):
        Speculator(text, NGramDrafts(), 15)
