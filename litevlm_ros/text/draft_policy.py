"""Decides how many tokens to draft and verify, so that drafts are used only where they pay.

If each drafted token is right with probability a, verifying k tokens gives 1 + a + ... + a^k tokens on average (arXiv
2211.17192, equation 1). The policy takes the k that gives the most tokens per second, by the times it has measured for
drafting and verification; k = 0 is plain decoding. Two rules keep the cost of wrong drafts low, and each topic, such as
the captions of one camera, has its own books for both:

- A draft has to show that it is right before it is tried: plain steps are compared with the drafts that were not used.
- A draft is tried only if the topic can pay for it should it be wrong: with LOSS of the time of its plain steps, and
  with what its drafts have saved.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable

from litevlm_ros.config import MOST_LOGITS
from litevlm_ros.text.drafts import Offer
from litevlm_ros.text.topics import Topics

SIZES = (2, 4, 8, MOST_LOGITS)
"""The numbers of tokens that a verification may have, with the last token of the answer.

They are few, because an engine has a program for each.
"""

LOSS = 0.01
"""The share of the time of a topic's plain steps that its wrong drafts may cost."""

STEP_AFTER = 128
"""The number of verifications in a row after which a plain step is timed again."""

FORGET_AFTER = 1024
"""The number of plain steps in a row after which the times of drafts and verifications count no more."""

_WEIGHT = 0.1
_MEMORY = 0.98
_MOST_SPARE = 8
"""Plain steps that a topic may save up for wrong drafts, so that drafts which turn wrong are soon given up."""
_MOST_DEBT = 1
"""Plain steps that it may owe, so that one slow run of a busy machine does not end its drafts for long."""
_UNTIMED, _UNTIMED_INTERRUPTING = 1.5, 3.5
"""Plain steps for which a verification is taken that was not timed yet.

One that interrupts plain steps waits for those that a backend has launched ahead.
"""
_DOUBT = (0.0, 2.0)
"""Right and decided tokens that a kind starts with whose drafts can be compared with plain steps."""
_HOPE = (3.0, 4.0)
"""The same for other kinds, of which nothing would ever be known if they were not tried."""


class DraftPolicy:
    """Decides on drafts, and learns from their results. All times are in seconds."""

    def __init__(self, most_tokens: int) -> None:
        """Verifies at most `most_tokens` drafted tokens at once, and no more than the largest of SIZES allows."""
        self.sizes = tuple(size for size in SIZES if size <= most_tokens + 1)
        self._step = _RunningTime()
        self._verification: defaultdict[tuple[int, bool], _RunningTime] = defaultdict(_RunningTime)
        self._drafting: defaultdict[int, _RunningTime] = defaultdict(_RunningTime)
        self._topics = Topics(_Books)
        self._books = _Books()
        self._steps = self._verifications = 0

    def begin(self, topic: Hashable) -> None:
        """Starts an answer of `topic`."""
        self._books = self._topics.take(topic)

    def length(self, offer: Offer, interrupts: bool) -> int:
        """Returns the number of tokens to draft and verify now; 0 for a plain step.

        `interrupts` is true if plain steps may be under way for which the verification has to wait.
        """
        if not offer.most or self._verifications >= STEP_AFTER:
            return 0
        length, gain = self._best(offer.most, offer.kind, self._books.rate(offer), interrupts)
        return length if gain > 1 else 0

    @property
    def pays(self) -> bool:
        """True if a draft of some kind that was offered in this topic would be verified."""
        most = self.sizes[-1] - 1
        return any(self._best(most, kind, rate, False)[1] > 1 for kind, rate in self._books.rates.items())

    @property
    def may_pay(self) -> bool:
        """True if drafts pay in this topic, or if none has been offered in it."""
        return not self._books.rates or self.pays

    def stepped(self, seconds: float, resumes: bool = False) -> None:
        """Notes the time of a plain step. One that `resumes` them behind a draft was not launched ahead."""
        step = self._step.seconds or 0.0
        self._earn(LOSS * step)
        if resumes:
            self._earn(min(0.0, step - min(seconds, 2 * step)))
        else:
            self._step.add(seconds)
            self._verifications = 0
        self._steps += 1
        if self._steps == FORGET_AFTER:
            self._steps = 0
            for time in (*self._verification.values(), *self._drafting.values()):
                time.forget()

    def watched(self, offer: Offer, token: int) -> None:
        """Notes that `token` came where the draft of `offer` was not used.

        If nobody knows whether the draft was right, hope grows again, so that it is tried once more some day.
        """
        if offer.most:
            rate = self._books.rate(offer)
            if offer.guess is not None:
                rate.add(offer.guess == token, 1)
            else:
                rate.add(_HOPE[0] / _HOPE[1], 1)

    def verified(self, draft: Offer, accepted: int, interrupted: bool, drafting: float, seconds: float) -> None:
        """Notes a verification of `draft.most` tokens, of which the first `accepted` were right.

        Drafting them took `drafting` seconds, and the verification then took `seconds`.
        """
        size = next(size for size in self.sizes if size > draft.most)
        cost = draft.most * self._drafting[draft.kind].add(drafting / draft.most)
        cost += self._verification[size, interrupted].add(seconds, self._untimed(interrupted))
        self._earn((accepted + 1) * (self._step.seconds or 0.0) - cost)
        # Nothing is known of the tokens behind the first wrong one.
        self._books.rate(draft).add(accepted, min(accepted + 1, draft.most))
        self._steps = 0
        self._verifications += 1

    def drafted_nothing(self, draft: Offer, drafting: float) -> None:
        """Notes `drafting` seconds for the guess that the answer ends, which is as useless as a wrong draft."""
        self._earn(-self._drafting[draft.kind].add(drafting))
        self._books.rate(draft).add(0, 1)

    def _earn(self, seconds: float) -> None:
        step = self._step.seconds or 0.0
        self._books.spare = min(max(self._books.spare + seconds, -_MOST_DEBT * step), _MOST_SPARE * step)

    def _best(self, most: int, kind: int, rate: RunningRate, interrupts: bool) -> tuple[int, float]:
        """Returns the best length from 1 to `most`, and its speedup over plain steps; 0 and 1.0 if there is none."""
        best, gain = 0, 1.0
        step, right = self._step.seconds, rate.rate
        if step is None or not right:
            return best, gain
        for size in self.sizes:
            length = min(most, size - 1)
            cost = self._cost(size, interrupts, length, kind)
            if cost - step <= self._books.spare:
                expected = length + 1 if right == 1 else (1 - right ** (length + 1)) / (1 - right)
                faster = expected * step / cost if cost else expected
                if faster > gain:
                    best, gain = length, faster
            if length == most:
                break
        return best, gain

    def _cost(self, size: int, interrupts: bool, length: int, kind: int) -> float:
        """Returns the seconds of a draft and its verification."""
        verification = self._verification[size, interrupts].seconds
        if verification is None:
            verification = self._untimed(interrupts)
        return verification + (self._drafting[kind].seconds or 0.0) * length

    def _untimed(self, interrupts: bool) -> float:
        return (_UNTIMED_INTERRUPTING if interrupts else _UNTIMED) * (self._step.seconds or 0.0)


class _Books:
    """The books of one topic: the acceptance of its drafts by kind, and the seconds that wrong ones may cost."""

    def __init__(self) -> None:
        self.rates: dict[int, RunningRate] = {}
        self.spare = 0.0

    def rate(self, offer: Offer) -> RunningRate:
        """Returns the acceptance of the offer's kind."""
        if offer.kind not in self.rates:
            self.rates[offer.kind] = RunningRate(*(_HOPE if offer.guess is None else _DOUBT))
        return self.rates[offer.kind]


class _RunningTime:
    """A running mean of times in seconds. The first time is left out, because it may include compilation."""

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._warm = False

    def add(self, seconds: float, first: float = 0.0) -> float:
        """Returns the time to be counted for this run: at most twice the mean, and `first` for the first run."""
        if not self._warm:
            self._warm = True
            return first
        if self.seconds is None:
            self.seconds = seconds
        # A single slow run must not pass for the usual time.
        counted = min(seconds, 2 * self.seconds)
        self.seconds += _WEIGHT * (counted - self.seconds)
        return counted

    def forget(self) -> None:
        """Forgets the mean. The next time counts, because everything is compiled."""
        self.seconds = None


class RunningRate:
    """A running share of successes, in which older ones count less and less."""

    def __init__(self, right: float = 0.0, among: float = 0.0) -> None:
        self._right, self._all = right, among

    @property
    def rate(self) -> float:
        """The share, from 0 to 1; 0 before anything was counted."""
        return self._right / self._all if self._all else 0.0

    def add(self, right: float, among: int) -> None:
        """Counts `among` more trials, of which `right` were successes."""
        kept = _MEMORY**among
        self._right = kept * self._right + right
        self._all = kept * self._all + among
