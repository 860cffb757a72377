"""A pipeline that answers at once with what it was asked, or as slowly as a test wants it to."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from typing import Any

from litevlm_ros.config import PipelineConfig, SamplingConfig
from litevlm_ros.images.decoding import as_rgb
from litevlm_ros.types import Answer, FinishReason, Timings, TokenCounts, View


class ScriptedPipeline:
    """Its text names the views with the red value of their first pixel: "front=7 What is ahead?", word by word."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.seconds = seconds
        self.error = error
        self.go = threading.Event()
        """Cleared, it holds up every answer until it is set or the answer is cancelled."""
        self.go.set()
        self.all_views: list[bool] = []
        self.calls: list[tuple[tuple[str, ...], str, SamplingConfig | None]] = []
        self.closed = False
        self.config: PipelineConfig | None = None

    def close(self) -> None:
        self.closed = True

    def change(self, config: PipelineConfig) -> None:
        self.config = config

    def generate(
        self,
        views: Sequence[View],
        question: str,
        sampling: SamplingConfig | None = None,
        on_text: Any = None,
        cancel: threading.Event | None = None,
        *,
        all_views: bool = False,
    ) -> Answer:
        self.all_views.append(all_views)
        self.calls.append((tuple(view.camera for view in views), question, sampling))
        if self.error is not None:
            raise self.error
        while not self.go.wait(0.002) and not (cancel and cancel.is_set()):
            pass
        seen = " ".join(f"{view.camera}={as_rgb(view.image)[0, 0, 0]}" for view in views)
        pieces = re.findall(r"\s*\S+", f"{seen} {question}")
        text = ""
        for count, piece in enumerate(pieces, 1):
            deadline = time.monotonic() + self.seconds / len(pieces)
            while time.monotonic() < deadline and not (cancel and cancel.is_set()):
                time.sleep(0.002)
            if cancel and cancel.is_set():
                break
            text += piece
            if on_text is not None:
                on_text(piece, count)
        return Answer(
            text=text,
            prompt=question,
            cameras=tuple(view.camera for view in views),
            finish_reason=FinishReason.CANCELLED if cancel and cancel.is_set() else FinishReason.STOP,
            tokens=TokenCounts(prompt=10, visual=4 * len(views), generated=3),
            timings=Timings(preprocess=1.0, vision=2.0, prefill=3.0, decode=4.0, total=10.0),
        )
