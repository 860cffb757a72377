"""Stands in for the plans of an engine where a test asks who computes a block."""

from __future__ import annotations

from collections.abc import Mapping

from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.plans import PlanBlock


class StandInPlan(PlanBlock):
    """A plan that nobody runs."""

    def __init__(self) -> None:
        pass

    def enqueue(self, addresses: Mapping[str, int]) -> None:
        raise AssertionError("this plan is not for running")


class StandInPlans:
    """Stands in for BlockPlans, and remembers what it was asked for."""

    def __init__(self, *held: tuple[str, int]) -> None:
        """`held` are the names and rows of those in the engine file."""
        self._held = held
        self.made: list[tuple[str, int]] = []

    def holds(self, name: str, rows: int) -> bool:
        return (name, rows) in self._held

    def block(self, name: str, rows: int) -> Block:
        self.made.append((name, rows))
        return StandInPlan()
