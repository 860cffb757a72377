"""What a backend implements: `VisionEncoder` and `TextDecoder`.

The interface leaves data where the backend wants it. Visual tokens and the KV cache may live on a device and are never
looked into from outside; the next token is the backend's own argmax; logits are copied out only when someone asks.
`forward` takes any number of new tokens and returns logits of the last few, so prefill, decoding and the verification
of drafts are the same call, and taking tokens back is `cache.truncate`. `decode_greedy` is what remains of that when
nobody looks at logits: a backend may then choose and read tokens on its own, ahead of the one who takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from litevlm_ros.config import TokenSelectionConfig
from litevlm_ros.errors import ConfigError

Tiles = npt.NDArray[np.uint8]
"""uint8 [N, size, size, 3], RGB."""
TokenIds = npt.NDArray[np.int64]
"""int64 [S]; an id of vocabulary size + i stands for row i of the visual tokens."""
Logits = npt.NDArray[np.float32]
"""float32 [K, V]."""
HiddenStates = npt.NDArray[Any]
"""float32 or float16 [K, text width]: what the decoder's last layer gives, normalised, from which come the logits."""
HiddenState = npt.NDArray[Any]
"""One row of it."""


class VisualTokens(Protocol):
    """Visual tokens [count, text width], held by the backend that made them."""

    @property
    def count(self) -> int:
        """Rows."""

    def part(self, first: int, end: int) -> VisualTokens:
        """The rows from `first` to before `end`, which hold the memory of all."""


class VisionEncoder(Protocol):
    """Tiles to visual tokens."""

    def encode(self, pixels: Tiles) -> VisualTokens:
        """The tokens of all tiles, tile by tile. They stay valid as long as they are referenced.

        Returns when they are computed. Raises EngineError.
        """

    def join(self, parts: Sequence[VisualTokens]) -> VisualTokens:
        """All rows of at least one of this encoder's results, in this order. Raises EngineError."""


@dataclass(frozen=True)
class Selection:
    """Some of the visual tokens of several tiles, as many of each tile, in their order.

    `places` int64 [count] says which of all tokens each is. It is on the host, as positions are made of it.
    """

    visual: VisualTokens
    places: npt.NDArray[np.int64]


class TokenSelector(Protocol):
    """Drops visual tokens."""

    def select(self, visual: VisualTokens) -> Selection:
        """The tokens to keep of the tiles that a `VisionEncoder` encoded or joined, in a copy.

        The same tile always keeps the same tokens, whatever tiles are beside it. Raises EngineError.
        """


class KVCache(Protocol):
    """Keys and values of the tokens that the decoder has read, one row per token."""

    @property
    def length(self) -> int:
        """Rows in use."""

    @property
    def capacity(self) -> int:
        """Rows there are."""

    def truncate(self, length: int) -> None:
        """Forgets all rows from `length` on. Costs nothing. Raises EngineError if there are fewer."""


class DecoderOutput(Protocol):
    """What `TextDecoder.forward` found out about the tokens after its last K ones. Valid until the next `forward`."""

    @property
    def next_tokens(self) -> TokenIds:
        """int64 [K]: the likeliest token after each."""

    def logits(self) -> Logits:
        """float32 [K, V]. The caller must not keep it beyond the next `forward`, and may overwrite it."""

    def hidden(self) -> HiddenStates:
        """As `logits`, where the decoder `gives_hidden`."""


class TextDecoder(Protocol):
    """New tokens and a cache to the next tokens."""

    @property
    def cache(self) -> KVCache:
        """What the next `forward` continues."""

    @property
    def most_logits(self) -> int:
        """The largest `num_logits` that `forward` takes."""

    @property
    def gives_hidden(self) -> bool:
        """Whether its outputs have hidden states."""

    def prepare(self, counts: Sequence[int]) -> None:
        """Gets ready to read so many tokens at once with the logits of each, wherever the cache ends.

        What a backend has to compile for that it compiles now, not in the middle of an answer. Raises EngineError.
        """

    def forward(
        self,
        input_ids: TokenIds,
        position_ids: TokenIds,
        visual_tokens: VisualTokens | None = None,
        num_logits: int = 1,
    ) -> DecoderOutput:
        """Reads S >= 1 tokens and appends them to the cache; next tokens and logits for the last `num_logits` of them.

        Both id arrays are int64 [S]; `position_ids` are rotary positions and may have gaps. `visual_tokens` is needed
        if any id is a visual one. Raises EngineError, and the cache then has the length that it had before.
        """

    def decode_greedy(self, token: int, position: int, limit: int) -> Iterator[int]:
        """Reads `token` at `position` and gives the likeliest next token, reads that and gives the next: `limit` times.

        Whenever a token is given, the cache ends with the one before it, whatever the backend has computed ahead, and
        the iterator may be dropped for any other call. Raises EngineError, and the cache then ends with the token
        before the last one given.
        """


def read_one_by_one(text: TextDecoder, token: int, position: int, limit: int) -> Iterator[int]:
    """`TextDecoder.decode_greedy` by `forward`, for a backend that gains nothing by running ahead."""
    for place in range(position, position + limit):
        token = int(text.forward(np.array([token]), np.array([place])).next_tokens[-1])
        yield token


def _nothing() -> None:
    pass


def _no_selector(config: TokenSelectionConfig) -> TokenSelector:
    raise ConfigError(f"token_selection is {config.method!r}; allowed on this backend: 'off'. Use that")


@dataclass(frozen=True)
class Backend:
    """A loaded model."""

    name: str
    description: str
    """Versions, device and precision in words."""
    vision: VisionEncoder
    text: TextDecoder
    close: Callable[[], None] = _nothing
    """Gives back what garbage collection would not. Called once, on the thread that used the model."""
    memory: Callable[[], Mapping[str, int]] = dict
    """Bytes of device memory by purpose; nothing where the model lives in the host's memory."""
    token_selector: Callable[[TokenSelectionConfig], TokenSelector] = _no_selector
    """Makes a selector for any method but 'off'. Raises ConfigError for one that cannot run here, and EngineError."""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Engine file → SHA-256 of its contents; nothing where there are no engines."""
