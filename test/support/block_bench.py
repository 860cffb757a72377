"""The choice of what computes a part's blocks on a fake GPU, with plans that nobody runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litevlm_ros.engines.graphs import block_graphs
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig
from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.block_check import BlockCheck
from litevlm_ros.runtime.tensorrt.block_choice import BlockChoice
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Room
from litevlm_ros.runtime.tensorrt.plans import PlanBlock

TEXT_CONFIG = TextConfig(96, 160, 2, 6, 2, 16, 1e-6, 1e6, 100, True, 1024)
MODEL = ModelConfig(VisionConfig(64, 128, 2, 4, 56, 14), TEXT_CONFIG, "internvl2_5", True, 12)


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


class StandInRace:
    """Stands in for BlockRace, and remembers what it was asked: plans of the blocks `won` win."""

    def __init__(self, *won: str) -> None:
        self._won = won
        self.asked: list[tuple[str, int, str]] = []

    def winner(self, name: str, rows: int, cudnn_version: str, products: Block, make_plan: Any) -> Block:
        assert not isinstance(products, StandInPlan)
        self.asked.append((name, rows, cudnn_version))
        return make_plan() if name in self._won else products  # type: ignore[no-any-return]


class BlockBench:
    """The choice of a part's blocks. With a `race`, the engine file holds the plan 'mlp' of 40 rows."""

    def __init__(self, part: str, race: StandInRace | None = None) -> None:
        self.device, self.plans = CudaDevice(), StandInPlans(*([("mlp", 40)] if race else []))
        with self.device:
            self.memory = DeviceMemory(self.device)
            self.scratch = Room(self.device, self.memory, "working memory")
            check = BlockCheck(part, block_graphs(part, "fp16", MODEL), MODEL, "fp16", self.device, self.memory)
            plans: Any = self.plans
            raced: Any = race
            owner = f"the {part.replace('_', ' ')}'s"
            self.choice = BlockChoice(owner, plans, check, raced, self.device, self.memory)

    def close(self) -> None:
        with self.device:
            self.choice.close()
            self.memory.free()
        self.device.close()
