"""The pipeline's input and output: views and questions, answers and what it took to produce them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

RgbImage = npt.NDArray[np.uint8]
"""uint8 [height, width, 3], RGB."""


@dataclass(frozen=True, eq=False)
class RawImage:
    """An image as a camera's driver packed it: the fields of a sensor_msgs/Image, of the same names.

    `images/decoding.py` decodes it. `data` has the buffer protocol and a length; nobody may change it.
    """

    encoding: str
    width: int
    height: int
    step: int
    """Number of bytes from one row to the next."""
    data: Any
    is_bigendian: bool = False


AnyImage = RgbImage | RawImage
"""An RGB image, or one that is still to be decoded."""

OnText = Callable[[str, int], object]
"""Is called with each piece of an answer as it is decoded, and with the number of tokens decoded so far. The pieces add
up to the text."""

Notify = Callable[[str], object]
"""A function that is called with one line at a time for a person who waits for a tool."""


@dataclass(frozen=True)
class View:
    """One camera's frame.

    `image` may still be packed as the camera's driver sent it; `as_rgb` in images/decoding.py decodes it if need be.
    `frame` identifies the image among all images of the camera, so that results computed from it can be reused. With
    None, everything is computed anew.
    """

    camera: str
    image: AnyImage
    frame: Hashable | None = None


class FinishReason(str, Enum):
    """The reason why generation ended."""

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
    """Counts of the tokens that were drafted and verified while one answer was decoded (`text/speculator.py`).

    `drafted` tokens were verified in `verifications` calls of the decoder, and `accepted` of them were right.
    `acceptance` is the share of drafted tokens that was right lately, over all answers.
    """

    drafted: int = 0
    accepted: int = 0
    verifications: int = 0
    acceptance: float = 0.0


@dataclass(frozen=True)
class Reuse:
    """Results of earlier answers that an answer reused: `views` that were encoded already, and `tokens` of its prompt
    whose keys and values were still in the cache."""

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


def milliseconds_since(started: float) -> float:
    """Returns the milliseconds since `started`, a reading of time.perf_counter()."""
    return 1e3 * (time.perf_counter() - started)


@dataclass(frozen=True)
class Answer:
    """Text about some views, with the tokens and the time it took."""

    text: str
    prompt: str
    cameras: tuple[str, ...]
    finish_reason: FinishReason
    tokens: TokenCounts
    timings: Timings
    speculation: Speculation = Speculation()
    reuse: Reuse = Reuse()

    def message_fields(self) -> dict[str, Any]:
        """Returns the fields that Caption.msg and Answer.msg have in common, by their names there.

        `timings` is a dictionary of milliseconds by stage.
        """
        return {
            "prompt": self.prompt,
            "text": self.text,
            "finish_reason": self.finish_reason.value,
            "prompt_tokens": self.tokens.prompt,
            "visual_tokens": self.tokens.visual,
            "generated_tokens": self.tokens.generated,
            "drafted_tokens": self.speculation.drafted,
            "accepted_tokens": self.speculation.accepted,
            "draft_acceptance": self.speculation.acceptance,
            "reused_views": self.reuse.views,
            "reused_tokens": self.reuse.tokens,
            "timings": asdict(self.timings),
        }
