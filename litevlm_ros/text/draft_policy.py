"""Decides how many tokens to draft and verify, from measured times and the share of drafts that was right.

If each drafted token is right with probability a, verifying k tokens gives 1 + a + ... + a^k tokens on average (arXiv
2211.17192, equation 1). The policy takes the k that gives the most tokens per second, by the times it has measured for
drafting and verification; k = 0 is plain decoding.
"""

from __future__ import annotations

from collections import defaultdict

from litevlm_ros.config import MOST_LOGITS
from litevlm_ros.text.drafts import Offer

SIZES = (2, 4, 8, MOST_LOGITS)
"""The numbers of tokens that a verification may have, with the last token of the answer.

They are few, because an engine has a program for each.
"""

PROBE_AFTER = 128
"""The number of equal decisions after which the opposite is tried once, because its measurements are old by then."""

_WEIGHT = 0.1
_MEMORY = 0.98
_HOPE = (3.0, 4.0)
"""Accepted and decided tokens that a kind of drafts starts with, so that each kind is tried."""


class DraftPolicy:
    """Decides on drafts, and learns from their results. All times are in seconds."""

    def __init__(self, most_tokens: int) -> None:
        """Verifies at most `most_tokens` drafted tokens at once, and no more than the largest of SIZES allows."""
        self.sizes = tuple(size for size in SIZES if size <= most_tokens + 1)
        self._step = _RunningTime()
        self._verification: defaultdict[tuple[int, bool], _RunningTime] = defaultdict(_RunningTime)
        self._drafting: defaultdict[int, _RunningTime] = defaultdict(_RunningTime)
        self._acceptance: defaultdict[int, RunningRate] = defaultdict(lambda: RunningRate(*_HOPE))
        self._refused = self._taken = 0

    def length(self, offer: Offer, interrupts: bool) -> int:
        """Returns the number of tokens to draft and verify now; 0 for a plain step.

        `interrupts` is true if plain steps may be under way for which the verification has to wait.
        """
        if not offer.most or self._step.seconds is None:
            return 0
        length, gain = self._best(offer, interrupts)
        if gain > 1:
            self._taken += 1
            self._refused = 0
            if self._taken < PROBE_AFTER:
                return length
            self._taken = 0
            return 0
        self._refused += 1
        if self._refused < PROBE_AFTER:
            return 0
        self._refused = 0
        return length

    @property
    def pays(self) -> bool:
        """True if a draft of some kind that was offered before would be verified."""
        kinds = tuple(self._acceptance)
        return not kinds or any(self._best(Offer(self.sizes[-1], kind), False)[1] > 1 for kind in kinds)

    def stepped(self, seconds: float) -> None:
        """Notes the time of a plain step."""
        self._step.add(seconds)
        self._taken = 0

    def verified(self, draft: Offer, accepted: int, interrupted: bool, drafting: float, seconds: float) -> None:
        """Notes a verification of `draft.most` tokens, of which the first `accepted` were right.

        Drafting them took `drafting` seconds, and the verification then took `seconds`.
        """
        self._drafting[draft.kind].add(drafting / draft.most)
        self._verification[self._size(draft.most), interrupted].add(seconds)
        # Nothing is known of the tokens behind the first wrong one.
        self._acceptance[draft.kind].add(accepted, min(accepted + 1, draft.most))

    def drafted_nothing(self, kind: int, drafting: float) -> None:
        """Notes `drafting` seconds for the guess that the answer ends, which is as useless as a wrong draft."""
        self._drafting[kind].add(drafting)
        self._acceptance[kind].add(0, 1)

    def _best(self, offer: Offer, interrupts: bool) -> tuple[int, float]:
        """Returns the best length from 1 on, and its speedup over plain steps."""
        acceptance = self._acceptance[offer.kind].rate
        gains: dict[int, float] = {}
        for size in self.sizes:
            length = min(offer.most, size - 1)
            expected = sum(acceptance**place for place in range(length + 1))
            gains.setdefault(length, expected / self._relative_cost(size, interrupts, length, offer.kind))
        best = max(gains, key=lambda length: gains[length])
        return best, gains[best]

    def _relative_cost(self, size: int, interrupts: bool, length: int, kind: int) -> float:
        """Returns the cost of a draft and its verification, in plain steps.

        A time that was not measured yet is taken for a low one, so that it will be measured: a verification for one
        step, drafting for nothing.
        """
        verification, step = self._verification[size, interrupts].seconds, self._step.seconds
        if not step:
            return 1.0
        drafting = (self._drafting[kind].seconds or 0.0) * length
        return ((step if verification is None else verification) + drafting) / step

    def _size(self, length: int) -> int:
        return next(size for size in self.sizes if size > length)


class _RunningTime:
    """A running mean of times in seconds. The first time is left out, because it may include compilation."""

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._count = 0

    def add(self, seconds: float) -> None:
        self._count += 1
        if self._count == 1:
            return
        if self.seconds is None:
            self.seconds = seconds
        else:
            # A single slow run must not pass for the usual time.
            self.seconds += _WEIGHT * (min(seconds, 2 * self.seconds) - self.seconds)


class RunningRate:
    """A running share of successes, in which older ones count less and less."""

    def __init__(self, right: float = 0.0, among: float = 0.0) -> None:
        self._right, self._all = right, among

    @property
    def rate(self) -> float:
        """The share, from 0 to 1; 0 before anything was counted."""
        return self._right / self._all if self._all else 0.0

    def add(self, right: int, among: int) -> None:
        """Counts `among` more trials, of which `right` were successes."""
        kept = _MEMORY**among
        self._right = kept * self._right + right
        self._all = kept * self._all + among
