"""The exceptions that people may see. Each message says what happened, with which parameter or file, and the fix."""

from __future__ import annotations

from enum import Enum


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its type's name: libraries add pages of details behind it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def visible(text: str) -> str:
    """Returns text from outside in a form that a terminal or a log may show.

    Line breaks and tabs stay; every other control character, which could steer a terminal, becomes its escape.
    """
    return _escaped(text, "\n\t")


def printable(text: str, most: int = 60) -> str:
    """Returns text from outside in a form that may stand within a message.

    That is one line without control characters, cut after `most` characters.
    """
    shown = _escaped(text[:most])
    return shown if len(text) <= most else f"{shown}..."


def _escaped(text: str, kept: str = "") -> str:
    return "".join(letter if letter.isprintable() or letter in kept else ascii(letter)[1:-1] for letter in text)


class LiteVLMError(Exception):
    """Base of all errors this package raises on purpose.

    Messages quote what files, servers and libraries say. Their text is `visible`, wherever it is shown.
    """

    def __str__(self) -> str:
        return visible(super().__str__())


class ConfigError(LiteVLMError, ValueError):
    """A setting is missing, out of range or contradicts another one."""


class CheckpointError(LiteVLMError):
    """A model directory is incomplete, of an unsupported architecture or damaged."""


class EngineError(LiteVLMError):
    """A graph or engine could not be loaded or run."""


class NotFiniteError(EngineError):
    """A model's numbers are infinite or NaN, so there is no answer: its precision is too narrow, or it is damaged."""


class DownloadError(LiteVLMError):
    """A model or an archive of engines could not be fetched, does not fit, or would overwrite something."""


class OutputError(LiteVLMError):
    """A file could not be written."""


class ImageError(LiteVLMError, ValueError):
    """An image is malformed: unknown encoding, wrong step, short data or no pixels."""


class ImageFault(str, Enum):
    """The reasons to refuse an image: few, so that dropped images are counted by them."""

    UNKNOWN_ENCODING = "unknown encoding"
    NOT_A_PICTURE = "no picture"
    """Depth or other measurements."""
    MIXED_UP = "compressed data in a raw message or the reverse"
    NO_PIXELS = "no pixels"
    TOO_LARGE = "too large"
    ODD_SIZE = "size unfit for its encoding"
    WRONG_STEP = "wrong step"
    SHORT_DATA = "short data"
    DAMAGED = "damaged data"


class MalformedImageError(ImageError):
    """An image message cannot be decoded. `fault` is the reason."""

    def __init__(self, fault: ImageFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class ContextOverflowError(LiteVLMError, ValueError):
    """Prompt and visual tokens leave no room in the context for an answer."""


class NoFrameError(LiteVLMError):
    """A camera has no frame, or only one that is too old."""


class BusyError(LiteVLMError):
    """Too many questions are waiting."""


class DeadlineError(LiteVLMError):
    """A question waited longer than its deadline allows."""


class NotActiveError(LiteVLMError):
    """The node is in a state in which it answers no questions."""
