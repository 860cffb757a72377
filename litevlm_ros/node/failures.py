"""The failures of questions, for clients: the words and the number of each exception."""

from __future__ import annotations

import traceback
from concurrent.futures import CancelledError
from typing import Any, NamedTuple

from litevlm_ros.errors import (
    BusyError,
    CheckpointError,
    ConfigError,
    ContextOverflowError,
    DeadlineError,
    EngineError,
    ImageError,
    LiteVLMError,
    NoFrameError,
    NotActiveError,
)
from litevlm_ros.msg import ErrorCode

_CODES: dict[type[BaseException], int] = {
    ConfigError: ErrorCode.BAD_REQUEST,
    ImageError: ErrorCode.BAD_IMAGE,
    NoFrameError: ErrorCode.NO_FRAME,
    BusyError: ErrorCode.BUSY,
    DeadlineError: ErrorCode.DEADLINE,
    ContextOverflowError: ErrorCode.CONTEXT_FULL,
    EngineError: ErrorCode.MODEL,
    CheckpointError: ErrorCode.MODEL,
    NotActiveError: ErrorCode.NOT_ACTIVE,
    # A question that its client cancels does not come here: the client knows. Otherwise the node has stopped it.
    CancelledError: ErrorCode.NOT_ACTIVE,
}


class Failure(NamedTuple):
    """The reason why there is no answer. `code` is a constant of litevlm_ros/ErrorCode."""

    code: int
    text: str


def failure_of(error: BaseException, log: Any) -> Failure:
    """Returns what the client is told whose question ended with this error.

    Logs errors that are not the client's: the model's and unexpected ones.
    """
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), ErrorCode.INTERNAL)
    if code == ErrorCode.MODEL:
        log.error(f"No answer to a question: {error}")
    if isinstance(error, LiteVLMError):
        return Failure(code, str(error))
    if isinstance(error, CancelledError):
        return Failure(code, "the node stopped before the answer was complete")
    log.error("".join(traceback.format_exception(error)))
    return Failure(code, f"internal error: {error!r}; the node's log has the details")
