"""Drafts of a small trained head on the decoder's hidden states (EAGLE, arXiv 2401.15077), on ONNX Runtime.

The head reads the answer's tokens, each with the hidden state from which the decoder chose it, and guesses the next
token and its state; from there on it reads its own guesses. It keeps keys and values of the answer only, because the
hidden states carry the prompt.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from litevlm_ros.backend import HiddenState
from litevlm_ros.config import MOST_DRAFT_TOKENS, MOST_LOGITS
from litevlm_ros.errors import EngineError, NotFiniteError
from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.kv_cache import HostKVCache, bucket
from litevlm_ros.runtime.onnx.finite_check import all_finite
from litevlm_ros.runtime.onnx.session import DTYPES, Array, bind, export_hint, open_session
from litevlm_ros.text.drafts import Offer

_TOOL = "train_draft_head"

HEAD = 0
"""`Offer.kind` of the head's drafts."""


class HeadDrafts:
    """A source of drafts that runs `draft_head.onnx` with a KV cache of its own."""

    reads_hidden = True

    def __init__(
        self, file: Path, text: TextConfig, capacity: int, options: Any, stop_ids: Collection[int] = ()
    ) -> None:
        """Loads the graph in `file`, which was trained for the decoder `text`.

        Answers have at most `capacity` tokens and end with one of `stop_ids`. `options` are
        onnxruntime.SessionOptions. Raises EngineError if the graph is damaged or belongs to another model.
        """
        row = ("C", text.num_kv_heads, text.head_dim)
        cache = dict.fromkeys(("past_key", "past_value", "new_key", "new_value"), row)
        others: dict[str, tuple[int | str, ...]] = {
            "input_ids": ("S",),
            "hidden": ("S", text.hidden_size),
            "past_length": (1,),
            "next_token": (1,),
            "next_hidden": (1, text.hidden_size),
        }
        self._file = file
        self._session = open_session(file, options, {**others, **cache}, tool=_TOOL)
        self._dtype = np.dtype(next(DTYPES[v.type] for v in self._session.get_inputs() if v.name == "hidden"))
        self._width = text.hidden_size
        self._stop_ids = stop_ids
        self._cache = HostKVCache(replace(text, num_layers=1), capacity + MOST_DRAFT_TOKENS, self._dtype)
        self._kept: dict[tuple[int, int], _Call] = {}
        self._tokens: list[int] = []
        self._states: list[HiddenState] = []
        self._said = 0

    def begin(self, prompt: Sequence[int], topic: Hashable) -> None:
        """See `DraftSource.begin`."""
        self._forget()

    def add(self, token: int, hidden: HiddenState | None) -> None:
        """See `DraftSource.add`. A token without a state cannot be read, so drafts begin anew behind it."""
        if hidden is None:
            self._forget()
        else:
            self._tokens.append(token)
            self._states.append(hidden.copy())

    def offer(self) -> Offer:
        """See `DraftSource.offer`."""
        return Offer(MOST_DRAFT_TOKENS if self._tokens else 0, HEAD)

    def draft(self, count: int) -> Sequence[int]:
        """See `DraftSource.draft`."""
        self._cache.truncate(self._said)
        for first in range(0, len(self._tokens), MOST_LOGITS):
            end = first + MOST_LOGITS
            token, state = self._read(self._tokens[first:end], np.stack(self._states[first:end]))
        self._said = self._cache.length
        self._tokens.clear()
        self._states.clear()
        guesses: list[int] = []
        while token not in self._stop_ids:
            guesses.append(token)
            if len(guesses) == count:
                break
            token, state = self._read([token], state)
        return guesses

    def remember(self) -> None:
        """See `DraftSource.remember`. The head learns nothing from an answer."""

    def _forget(self) -> None:
        self._said = 0
        self._tokens.clear()
        self._states.clear()

    def _read(self, tokens: Sequence[int], states: Array) -> tuple[int, Array]:
        """Appends the tokens to the cache. Returns the next token and its state [1, width].

        The state is valid until the next call. Raises EngineError.
        """
        count, rows = len(tokens), bucket(self._cache.length, self._cache.capacity)
        new_rows = self._cache.next(count)
        if (count, rows) not in self._kept:
            self._kept[count, rows] = self._call(count, rows)
        call = self._kept[count, rows]
        call.inputs["input_ids"][:] = tokens
        call.inputs["hidden"][:] = states
        call.inputs["past_length"][0] = self._cache.length
        try:
            self._session.run_with_iobinding(call.binding)
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            raise EngineError(f"the draft head failed on {count} tokens: {error}") from error
        if not all_finite(*(call.outputs[name] for name in ("next_hidden", "new_key", "new_value"))):
            raise NotFiniteError(
                f"the draft head gives infinite or NaN numbers, so {self._file} is damaged; "
                f"{export_hint(self._file.parent, _TOOL)}, or set speculation to ngram"
            )
        new_rows[0, 0], new_rows[0, 1] = call.outputs["new_key"], call.outputs["new_value"]
        self._cache.extend(count)
        return int(call.outputs["next_token"][0]), call.outputs["next_hidden"]

    def _call(self, count: int, rows: int) -> _Call:
        (past_key, past_value), new = self._cache.past(rows)[0], np.zeros_like(self._cache.past(count)[0])
        inputs = {
            "input_ids": np.zeros(count, np.int64),
            "hidden": np.zeros((count, self._width), self._dtype),
            "past_length": np.zeros(1, np.int64),
            "past_key": past_key,
            "past_value": past_value,
        }
        outputs = {
            "next_token": np.zeros(1, np.int64),
            "next_hidden": np.zeros((1, self._width), self._dtype),
            "new_key": new[0],
            "new_value": new[1],
        }
        return _Call(inputs, outputs, bind(self._session, inputs, outputs))


@dataclass(frozen=True)
class _Call:
    """The buffers of one call of the graph, and the binding that names them to ONNX Runtime."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]
    binding: Any
