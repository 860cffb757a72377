"""An answer as it grows: its tokens, its text, and whoever reads along."""

from __future__ import annotations

from litevlm_ros.text.tokenizer import Detokenizer
from litevlm_ros.types import FinishReason, OnText


class Generation:
    """One answer. It ends for want of room unless `finish` says why."""

    def __init__(self, detokenizer: Detokenizer, on_text: OnText | None) -> None:
        self.tokens: list[int] = []
        self.text = ""
        self.finish_reason = FinishReason.LENGTH
        self._detokenizer = detokenizer
        self._on_text = on_text

    def add(self, token: int) -> None:
        """One more token. Raises what `on_text` raises."""
        self.tokens.append(token)
        self._emit(self._detokenizer.add(token))

    def finish(self, reason: FinishReason) -> None:
        """There are no more. Raises what `on_text` raises."""
        self.finish_reason = reason
        self._emit(self._detokenizer.flush())

    def _emit(self, piece: str) -> None:
        if piece:
            self.text += piece
            if self._on_text is not None:
                self._on_text(piece, len(self.tokens))
