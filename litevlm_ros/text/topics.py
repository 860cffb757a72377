"""Keeps something for each of the topics that came last. Answers of one topic are often alike."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

MOST_TOPICS = 64

_Kept = TypeVar("_Kept")


class Topics(Generic[_Kept]):
    """One object for each of the last MOST_TOPICS topics."""

    def __init__(self, make: Callable[[], _Kept]) -> None:
        """`make` returns the object of a topic that is new or forgotten."""
        self._make = make
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()

    def take(self, topic: Hashable) -> _Kept:
        """Returns the object of `topic`, which is the last topic now."""
        if topic not in self._kept:
            self._kept[topic] = self._make()
        self._kept.move_to_end(topic)
        if len(self._kept) > MOST_TOPICS:
            self._kept.popitem(last=False)
        return self._kept[topic]
