from __future__ import annotations

from concurrent.futures import CancelledError

import pytest

pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from litevlm_ros import errors
from litevlm_ros.msg import ErrorCode
from litevlm_ros.node.failures import failure_of

pytestmark = pytest.mark.ros


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def error(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("the question is empty"), ErrorCode.BAD_REQUEST),
        (errors.ImageError("front: no pixels"), ErrorCode.BAD_IMAGE),
        (errors.MalformedImageError(errors.ImageFault.DAMAGED, "damaged"), ErrorCode.BAD_IMAGE),
        (errors.NoFrameError("front has none"), ErrorCode.NO_FRAME),
        (errors.BusyError("busy"), ErrorCode.BUSY),
        (errors.DeadlineError("late"), ErrorCode.DEADLINE),
        (errors.ContextOverflowError("too long"), ErrorCode.CONTEXT_FULL),
        (errors.NotActiveError("inactive"), ErrorCode.NOT_ACTIVE),
    ],
)
def test_the_clients_failures_have_a_number_and_are_not_logged(error: Exception, code: int) -> None:
    log = Log()
    assert failure_of(error, log) == (code, str(error))
    assert log.lines == []


def test_the_models_failures_are_logged() -> None:
    log = Log()
    assert failure_of(errors.EngineError("no graph"), log) == (ErrorCode.MODEL, "no graph")
    assert failure_of(errors.NotFiniteError("NaN"), log) == (ErrorCode.MODEL, "NaN")
    assert failure_of(errors.CheckpointError("changed"), log).code == ErrorCode.MODEL
    assert log.lines == [f"No answer to a question: {text}" for text in ("no graph", "NaN", "changed")]


def test_the_end_of_the_node_and_what_nobody_foresaw() -> None:
    log = Log()
    assert failure_of(CancelledError(), log) == (
        ErrorCode.NOT_ACTIVE, "the node stopped before the answer was complete"
    )  # fmt: skip
    assert log.lines == []
    words = "internal error: KeyError('x'); the node's log has the details"
    assert failure_of(KeyError("x"), log) == (ErrorCode.INTERNAL, words)
    assert "KeyError" in log.lines[0]
    assert failure_of(errors.OutputError("disk"), log).code == ErrorCode.INTERNAL


def test_numbers_never_change() -> None:
    names = "NONE BAD_REQUEST BAD_IMAGE NO_FRAME BUSY DEADLINE CONTEXT_FULL CANCELLED MODEL NOT_ACTIVE INTERNAL"
    assert [getattr(ErrorCode, name) for name in names.split()] == list(range(11))
