"""The interface of a backend: `Tiler`, `VisionEncoder`, `TokenSelector`, `TextDecoder` and its `KVCache`.

The interface leaves data where the backend wants it. Visual tokens and the KV cache may live on a device and are never
looked into from outside; the next token is the backend's own argmax; logits are copied out only when someone asks.
`forward` takes any number of new tokens and returns logits of the last few, so prefill, decoding and the verification
of drafts are the same call, and taking tokens back is `cache.truncate`. Where nobody looks at logits, `decode_greedy`
lets a backend choose and read tokens on its own, ahead of the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from litevlm_ros.config import TokenSelectionConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.types import View

Tiles = npt.NDArray[np.uint8]
"""uint8 [N, size, size, 3]: RGB tiles."""
TokenIds = npt.NDArray[np.int64]
"""int64 [S]. An id of vocabulary size + i stands for row i of the visual tokens."""
Logits = npt.NDArray[np.float32]
"""float32 [K, V]: one row for each token whose successor is asked for, V the size of the vocabulary."""
HiddenStates = npt.NDArray[Any]
"""float32 or float16 [K, text width]: normalised outputs of the decoder's last layer, from which the logits follow."""
HiddenState = npt.NDArray[Any]
"""One row of HiddenStates."""


class VisualTokens(Protocol):
    """Visual tokens [count, text width], held by the backend that made them."""

    @property
    def count(self) -> int:
        """The number of rows."""

    def part(self, first: int, end: int) -> VisualTokens:
        """Returns the rows from `first` to before `end`, which keep the memory of all rows in use."""


@dataclass(frozen=True, eq=False)
class CutViews:
    """The tiles of several views."""

    tiles: Any
    """All tiles, view by view, as `VisionEncoder.encode` takes them: Tiles, or the backend's own handle with a length.
    A handle is valid until its tiler's next `cut`."""
    counts: tuple[int, ...]
    """Number of tiles of each view."""


class Tiler(Protocol):
    """Cuts views into the tiles that the vision encoder sees (`vision/tiling.py`)."""

    def cut(self, views: Sequence[View]) -> CutViews:
        """Cuts one or more views. Raises ImageError, which names the camera, and EngineError."""


class VisionEncoder(Protocol):
    """Turns tiles of images into visual tokens."""

    def encode(self, pixels: Any) -> VisualTokens:
        """Computes the tokens of all tiles, tile by tile. They stay valid as long as they are referenced.

        `pixels` are Tiles, or what the backend's own tiler made. It returns when the tokens are computed. Raises
        EngineError, of which NotFiniteError says that tokens would be infinite or NaN.
        """

    def join(self, parts: Sequence[VisualTokens]) -> VisualTokens:
        """Joins one or more of this encoder's results, rows in this order. Raises EngineError."""


@dataclass(frozen=True)
class Selection:
    """Some of the visual tokens of several tiles, equally many of each tile, in their order.

    `places` int64 [count] says which of all tokens each is. It is on the host, because positions are made of it.
    """

    visual: VisualTokens
    places: npt.NDArray[np.int64]


class TokenSelector(Protocol):
    """Drops some of the visual tokens of each tile."""

    def select(self, visual: VisualTokens) -> Selection:
        """Copies the tokens to keep of the tiles that a `VisionEncoder` encoded or joined.

        The same tile always keeps the same tokens, whatever tiles are beside it. Raises EngineError.
        """


class KVCache(Protocol):
    """Keys and values of the tokens that the decoder has read, one row per token."""

    @property
    def length(self) -> int:
        """The number of rows in use."""

    @property
    def capacity(self) -> int:
        """The number of rows that there are."""

    def truncate(self, length: int) -> None:
        """Forgets all rows from `length` on, which costs nothing. Raises EngineError if there are fewer."""


class DecoderOutput(Protocol):
    """The predictions of one `TextDecoder.forward` for its last K tokens. They are valid until the next `forward`."""

    @property
    def next_tokens(self) -> TokenIds:
        """int64 [K]: the likeliest token after each of them."""

    def logits(self) -> Logits:
        """Returns float32 [K, V]. The caller must not keep it beyond the next `forward`, and may overwrite it."""

    def hidden(self) -> HiddenStates:
        """Returns the hidden states [K, text width], under the terms of `logits`, if the decoder `gives_hidden`."""


class TextDecoder(Protocol):
    """Reads tokens, keeps them in a cache, and predicts the next ones."""

    @property
    def cache(self) -> KVCache:
        """The tokens read so far, which the next `forward` continues."""

    @property
    def most_logits(self) -> int:
        """The largest `num_logits` that `forward` takes."""

    @property
    def gives_hidden(self) -> bool:
        """True if the outputs have hidden states."""

    def prepare(self, counts: Sequence[int]) -> None:
        """Gets ready to read each of these numbers of tokens at once, with the logits of all, wherever the cache ends.

        A backend compiles now what it needs for that, not in the middle of an answer. Raises EngineError.
        """

    def forward(
        self,
        input_ids: TokenIds,
        position_ids: TokenIds,
        visual_tokens: VisualTokens | None = None,
        num_logits: int = 1,
    ) -> DecoderOutput:
        """Reads S >= 1 tokens, appends them to the cache, and predicts what follows the last `num_logits` of them.

        Both id arrays are int64 [S]; `position_ids` are rotary positions and may have gaps. `visual_tokens` is needed
        if any id is a visual one. Raises EngineError, of which NotFiniteError says that keys, values or logits would be
        infinite or NaN. The cache then has the length that it had before, and finite numbers in all rows.
        """

    def decode_greedy(self, token: int, position: int, limit: int) -> Iterator[int]:
        """Reads `token` at `position`, yields the likeliest next token, reads that, and so on, for `limit` tokens.

        Whenever a token is yielded, the cache ends with the one before it, whatever the backend has computed ahead, and
        the iterator may be dropped for any other call. Raises EngineError as `forward` does, and the cache then ends
        with the token before the last one yielded.
        """


def read_one_by_one(text: TextDecoder, token: int, position: int, limit: int) -> Iterator[int]:
    """Implements `TextDecoder.decode_greedy` by `forward`, for backends that gain nothing by running ahead."""
    for place in range(position, position + limit):
        token = int(text.forward(np.array([token]), np.array([place])).next_tokens[-1])
        yield token


def _nothing() -> None:
    pass


def _no_selector(config: TokenSelectionConfig) -> TokenSelector:
    raise ConfigError(f"token_selection is {config.method!r}; allowed on this backend: 'off'. Use that")


@dataclass(frozen=True)
class Backend:
    """A loaded model and the functions that belong to it."""

    name: str
    description: str
    """Versions, device and precisions, for people."""
    vision: VisionEncoder
    text: TextDecoder
    close: Callable[[], None] = _nothing
    """Frees what garbage collection would not. It is called once, on the thread that used the model."""
    memory: Callable[[], Mapping[str, int]] = dict
    """Returns the bytes of device memory by purpose; empty if the model lives in the host's memory."""
    token_selector: Callable[[TokenSelectionConfig], TokenSelector] = _no_selector
    """Makes a selector for any method but 'off'. Raises ConfigError for one that cannot run here, and EngineError."""
    tiler: Callable[[ModelConfig, int], Tiler] | None = None
    """Makes a tiler of at most so many tiles for each view, besides the thumbnail; None if the host cuts the tiles."""
    raw_encodings: frozenset[str] = frozenset()
    """The encodings of raw images that need no decoding, because the tiler takes them as they are."""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Engine file → SHA-256 of its contents; empty if there are no engines."""

    @contextmanager
    def closed_on_failure(self) -> Iterator[Backend]:
        """Closes the backend if the block raises, which then has no use for it."""
        try:
            yield self
        except BaseException:
            self.close()
            raise
