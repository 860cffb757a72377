"""What goes into the pipeline and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

RgbImage = npt.NDArray[np.uint8]
"""uint8 [height, width, 3], RGB."""

OnText = Callable[[str, int], object]
"""Called with each piece of an answer as it is decoded, and how many tokens there are by then; the pieces add up to the
text."""


@dataclass(frozen=True)
class View:
    """One camera's frame.

    `frame` names the picture among all that the camera ever gives, so that what was computed of it can be used again.
    None, where the picture has no such name, computes everything anew.
    """

    camera: str
    image: RgbImage
    frame: Hashable | None = None


class FinishReason(str, Enum):
    """Why generation ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of one answer. `prompt` includes the visual tokens."""

    prompt: int
    visual: int
    generated: int


@dataclass(frozen=True)
class Speculation:
    """Tokens that were guessed and checked while one answer was decoded (`text/speculative.py`).

    `drafted` of them were checked, in `verifications` calls of the decoder, and `accepted` were right. `acceptance` is
    the share that was right lately, over all answers.
    """

    drafted: int = 0
    accepted: int = 0
    verifications: int = 0
    acceptance: float = 0.0


@dataclass(frozen=True)
class Reuse:
    """What an answer took over from earlier ones: `views` that were encoded already, and `tokens` of its prompt whose
    keys and values were still in the cache."""

    views: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Timings:
    """Wall time of each stage in milliseconds.

    `queue` and `decode_image` happen before the pipeline and are filled in by its caller; `total` covers every stage.
    """

    queue: float = 0.0
    decode_image: float = 0.0
    preprocess: float = 0.0
    vision: float = 0.0
    select: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class Answer:
    """Text about some views, with what it took to produce it."""

    text: str
    prompt: str
    cameras: tuple[str, ...]
    finish_reason: FinishReason
    tokens: TokenCounts
    timings: Timings
    speculation: Speculation = Speculation()
    reuse: Reuse = Reuse()
