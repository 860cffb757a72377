"""How much of a draft is worth verifying, from what verification costs here and how often drafts are right.

With acceptance a for each token, verifying k tokens is expected to give 1 + a + ... + a^k tokens (arXiv 2211.17192,
equation 1), and it takes as long as measured, drafting included. Whichever k gives most tokens a second is chosen; 0
is plain decoding.
"""

from __future__ import annotations

from collections import defaultdict

from litevlm_ros.text.drafts import Offer

SIZES = (2, 4, 8, 16)
"""Tokens of a verification, the last token of the answer included. Few, because an engine has a program for each."""

PROBE_AFTER = 128
"""Decisions of the same kind after which the other one is tried, as its measurements grow old."""

_WEIGHT = 0.1
_MEMORY = 0.98
_HOPE = (3.0, 4.0)
"""Accepted and decided tokens that a kind of drafts starts with, so that it is tried."""


class DraftPolicy:
    """Decides, and learns from what came of it. Times are in seconds."""

    def __init__(self, most_tokens: int) -> None:
        """`most_tokens` of a draft are verified at once; verifications have at most the largest of SIZES."""
        self.sizes = tuple(size for size in SIZES if size <= most_tokens + 1)
        self._step = _RunningTime()
        self._verification: defaultdict[tuple[int, bool], _RunningTime] = defaultdict(_RunningTime)
        self._drafting: defaultdict[int, _RunningTime] = defaultdict(_RunningTime)
        self._acceptance: defaultdict[int, RunningRate] = defaultdict(lambda: RunningRate(*_HOPE))
        self._refused = self._taken = 0

    def length(self, offer: Offer, interrupts: bool) -> int:
        """How many tokens to draft and verify now; 0 for a plain step.

        `interrupts`: plain steps may be under way which the verification has to wait for.
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
        """Whether a draft of any kind that was offered would be verified."""
        kinds = tuple(self._acceptance)
        return not kinds or any(self._best(Offer(self.sizes[-1], kind), False)[1] > 1 for kind in kinds)

    def stepped(self, seconds: float) -> None:
        """A plain step took so long."""
        self._step.add(seconds)
        self._taken = 0

    def verified(self, draft: Offer, accepted: int, interrupted: bool, drafting: float, seconds: float) -> None:
        """All of `draft.most` tokens took `drafting` to draft and then `seconds` to verify; the first `accepted` of
        them were right."""
        self._drafting[draft.kind].add(drafting / draft.most)
        self._verification[self._size(draft.most), interrupted].add(seconds)
        # Nothing is known of the tokens behind the first wrong one.
        self._acceptance[draft.kind].add(accepted, min(accepted + 1, draft.most))

    def drafted_nothing(self, kind: int, drafting: float) -> None:
        """After `drafting` seconds the guess was that the answer ends: as useless as a wrong draft."""
        self._drafting[kind].add(drafting)
        self._acceptance[kind].add(0, 1)

    def _best(self, offer: Offer, interrupts: bool) -> tuple[int, float]:
        """The best length from 1 on, and how much faster than plain steps it gives tokens."""
        acceptance = self._acceptance[offer.kind].rate
        gains: dict[int, float] = {}
        for size in self.sizes:
            length = min(offer.most, size - 1)
            expected = sum(acceptance**place for place in range(length + 1))
            gains.setdefault(length, expected / self._relative_cost(size, interrupts, length, offer.kind))
        best = max(gains, key=lambda length: gains[length])
        return best, gains[best]

    def _relative_cost(self, size: int, interrupts: bool, length: int, kind: int) -> float:
        """Of a draft and its verification in plain steps. What was not measured yet passes for cheap, so that it will
        be: a verification for one step, drafting for nothing."""
        verification, step = self._verification[size, interrupts].seconds, self._step.seconds
        if not step:
            return 1.0
        drafting = (self._drafting[kind].seconds or 0.0) * length
        return ((step if verification is None else verification) + drafting) / step

    def _size(self, length: int) -> int:
        return next(size for size in self.sizes if size > length)


class _RunningTime:
    """A running mean in seconds. The first time is left out: it may hold compilation."""

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
            # One hiccup must not pass for what it usually takes.
            self.seconds += _WEIGHT * (min(seconds, 2 * self.seconds) - self.seconds)


class RunningRate:
    """A share in which the past counts less and less."""

    def __init__(self, right: float = 0.0, among: float = 0.0) -> None:
        self._right, self._all = right, among

    @property
    def rate(self) -> float:
        """0 to 1; 0 before anything was counted."""
        return self._right / self._all if self._all else 0.0

    def add(self, right: int, among: int) -> None:
        """`right` of `among` more."""
        kept = _MEMORY**among
        self._right = kept * self._right + right
        self._all = kept * self._all + among
