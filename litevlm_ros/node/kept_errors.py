"""Errors that are kept after the work that raised them: without its frames, which hold a model and images."""

from __future__ import annotations

import traceback
from concurrent.futures import CancelledError

from litevlm_ros.errors import LiteVLMError


class Traceback(Exception):
    """Stands as the cause of an error whose frames are gone, and has the words of its traceback."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def forget_frames(error: BaseException) -> BaseException:
    """Returns the error, which holds no frame any more, nor do the errors that it came from.

    A traceback keeps the local variables of all its frames, and each frame keeps the one that called it. So an error in
    a future would hold the pipeline and the images of its question as long as somebody holds the future, and often
    longer: where a frame refers to the future as well, until Python collects cycles. The frames are cleared besides,
    for those who hold the traceback themselves, as handlers of logs do.

    The log needs the traceback of errors that nobody foresaw. Their cause is a `Traceback` afterwards.
    """
    foreseen = isinstance(error, (LiteVLMError, CancelledError))
    words = "" if foreseen or error.__traceback__ is None else "".join(traceback.format_exception(error))
    for each in _origins(error):
        traceback.clear_frames(each.__traceback__)
        each.__traceback__ = each.__context__ = each.__cause__ = None
    if words:
        error.__cause__ = Traceback(words)
    return error


def _origins(error: BaseException) -> list[BaseException]:
    """Returns the error and all that it came from: causes, contexts, and the members of a group."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or any(each is known for known in found):
            continue
        found.append(each)
        waiting += [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]
    return found
