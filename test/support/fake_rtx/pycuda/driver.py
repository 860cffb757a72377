"""A CUDA driver with one GPU, as far as compiling kernels goes."""

from __future__ import annotations


class Error(Exception):
    """CUDA's errors."""


class Context:
    """A primary context."""

    def push(self) -> None:
        print("noise on stdout")


class Device:
    """The first GPU."""

    def __init__(self, index: int) -> None:
        assert index == 0

    def retain_primary_context(self) -> Context:
        return Context()


def init() -> None:
    """Starts the driver."""
