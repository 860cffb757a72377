from __future__ import annotations

import gc
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError

import pytest

from litevlm_ros.errors import EngineError
from litevlm_ros.node.kept_errors import forget_frames


class Model:
    """Stands for what a frame must not keep."""


def fail(model: Model, kind: type[Exception]) -> None:
    raise kind("broken")


def wrapped(model: Model) -> None:
    try:
        fail(model, KeyError)
    except KeyError as error:
        raise EngineError("the decoder failed") from error


def hidden(model: Model) -> None:
    try:
        fail(model, KeyError)
    except KeyError:
        raise CancelledError("stopped") from None  # the context stays, though nobody is shown it


def after_another(model: Model) -> None:
    try:
        wrapped(model)
    except EngineError:
        fail(model, RuntimeError)


def generating(model: Model) -> None:
    def tokens() -> Iterator[Model]:
        yield model
        wrapped(model)

    list(tokens())


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("work", [wrapped, hidden, after_another, generating])
def test_an_error_holds_nothing_of_the_work_that_raised_it(work: Callable[[Model], None]) -> None:
    model = Model()
    gone = weakref.ref(model)
    try:
        work(model)
    except Exception as raised:
        error = raised
    assert forget_frames(error) is error
    del model
    assert gone() is None
    assert error.__traceback__ is None


@pytest.mark.usefixtures("no_collection")
def test_a_traceback_that_somebody_else_keeps_holds_nothing_either() -> None:
    model = Model()
    gone = weakref.ref(model)
    try:
        wrapped(model)
    except EngineError as raised:
        error, kept = raised, raised.__traceback__
    forget_frames(error)
    del model
    assert gone() is None
    assert kept is not None


def test_the_words_of_an_unforeseen_error_stay() -> None:
    try:
        after_another(Model())
    except RuntimeError as raised:
        error = forget_frames(raised)
    told = "".join(traceback.format_exception(error))
    for expected in ("in after_another", "in fail", "KeyError: 'broken'", "the decoder failed", "RuntimeError: broken"):
        assert expected in told


def test_a_foreseen_error_needs_no_words() -> None:
    try:
        wrapped(Model())
    except EngineError as raised:
        error = forget_frames(raised)
    assert error.__cause__ is None
    assert str(error) == "the decoder failed"


def test_errors_that_refer_to_each_other_and_groups() -> None:
    first, second = KeyError("a"), KeyError("b")
    first.__context__, second.__context__ = second, first
    assert forget_frames(first).__context__ is None
    if sys.version_info >= (3, 11):
        model = Model()
        gone = weakref.ref(model)
        try:
            fail(model, KeyError)
        except KeyError as raised:
            member = raised
        error = ExceptionGroup("several", [member])  # noqa: F821 - newer than Python 3.10
        forget_frames(error)
        del model
        assert gone() is None
