"""A scripted decoder on a simulated GPU, whose time passes as measured on an H100. It is the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scripted_backend import ScriptedText

from litevlm_ros.runtime.tensorrt.text import AHEAD

LAUNCH = SYNCHRONISE = LISTENER = 20e-6
"""Seconds that the host needs to launch a program, to notice its end, and to take a token."""


def seconds(count: int) -> float:
    """Returns the time of a program of so many tokens, with the weights of InternVL2-1B in fp16."""
    return next(time for most, time in ((1, 0.59e-3), (8, 0.7e-3), (16, 0.9e-3), (4096, 2e-3)) if count <= most)


class TimedText(ScriptedText):
    """Runs one program after the other; `decode_greedy` launches AHEAD steps before it waits for the current one.

    So what is read in the middle of plain steps waits for those, and the step behind it was not launched ahead.
    """

    def __init__(self) -> None:
        super().__init__(vocab_size=1000, capacity=4096, words=range(10))
        self.now = 0.0
        self._busy_until = 0.0
        self._wait = True
        self.before_run = self._run

    def clock(self) -> float:
        """Returns the host's time in seconds."""
        return self.now

    def answer(self, prompt: Sequence[int], script: Sequence[int]) -> int:
        """Reads the prompt of an answer, which will be `script`. Returns its first token."""
        self.cache.truncate(0)
        self.script = script
        return int(self.forward(np.array(prompt), np.arange(len(prompt))).next_tokens[-1])

    def decode_greedy(self, token: int, position: int, limit: int) -> Iterator[int]:
        ends: list[float] = []
        for taken in range(limit):
            while len(ends) < min(taken + 1 + AHEAD, limit):
                ends.append(self._launch(1))
            self._until(ends[taken])
            self._wait = False
            token = int(self.forward(np.array([token]), np.array([position + taken])).next_tokens[-1])
            self._wait = True
            yield token

    def _run(self, count: int) -> None:
        if self._wait:
            self._until(self._launch(count))

    def _launch(self, count: int) -> float:
        self.now += LAUNCH
        self._busy_until = max(self._busy_until, self.now) + seconds(count)
        return self._busy_until

    def _until(self, end: float) -> None:
        self.now = max(self.now, end) + SYNCHRONISE
