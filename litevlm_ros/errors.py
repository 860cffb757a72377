"""Exceptions a person may see. Each message says what happened, which parameter or file, and the fix."""

from __future__ import annotations

from pathlib import Path


class LiteVLMError(Exception):
    """Base of all errors this package raises on purpose."""


class ConfigError(LiteVLMError, ValueError):
    """A setting is missing, out of range or contradicts another one."""


class CheckpointError(LiteVLMError):
    """A model directory is incomplete, of an unsupported architecture or damaged."""


class EngineError(LiteVLMError):
    """A graph or engine could not be loaded or run."""


class OutputError(LiteVLMError):
    """A file could not be written."""


class ImageError(LiteVLMError, ValueError):
    """An image is malformed: unknown encoding, wrong step, short data or no pixels."""


class ContextOverflowError(LiteVLMError, ValueError):
    """Prompt and visual tokens leave no room in the context for an answer."""


class NoFrameError(LiteVLMError):
    """A camera has no frame that may be used."""


class BusyError(LiteVLMError):
    """Too many questions are waiting."""


class DeadlineError(LiteVLMError):
    """A question waited for longer than its deadline allows."""


def printable(text: str, most: int = 60) -> str:
    """Text from outside as an error or a log may show it: one line without control characters, cut after `most`."""
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:most])
    return shown if len(text) <= most else f"{shown}..."


def while_writing(output: Path, error: Exception) -> str:
    """The words for an error of a tool that writes to `output`: those of a full disk do not say which file it was."""
    if isinstance(error, OSError) and error.filename is None:
        reason = error.strerror or error
        return f"{output} cannot be written ({reason}); free some room there, or give --output another directory"
    return str(error)
