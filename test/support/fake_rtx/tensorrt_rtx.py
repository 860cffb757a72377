"""Stands for TensorRT-RTX in processes that compile kernels.

A plan is the word that says what happens to it; its kernels tell with which settings and shapes they were compiled.
"""

from __future__ import annotations

import enum
import os
import time
from typing import Any

__version__ = "1.4.0.76"


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)

    def log(self, severity: int, message: str) -> None:
        raise NotImplementedError


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC = 0
    USER_MANAGED = 2


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    LAZY = 0
    EAGER = 1


class TensorIOMode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class Cache:
    def __init__(self) -> None:
        self.contents = b""

    def serialize(self) -> bytes:
        return self.contents

    def deserialize(self, contents: bytes) -> None:
        self.contents = contents


class Settings:
    def __init__(self) -> None:
        self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY
        self.strategy = ExecutionContextAllocationStrategy.STATIC
        self.cache = Cache()

    def set_execution_context_allocation_strategy(self, strategy: ExecutionContextAllocationStrategy) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> Cache:
        return Cache()

    def set_runtime_cache(self, cache: Cache) -> None:
        self.cache = cache


class Context:
    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine, self._settings, self._shapes = engine, settings, ""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes += f"{name}={shape}"
        return True

    def infer_shapes(self) -> list[str]:
        print("noise on stdout")
        settings = self._settings
        kind = settings.dynamic_shapes_kernel_specialization_strategy.name
        word = self._engine.plan.decode()
        settings.cache.contents = f"kernels of {word} {kind} {settings.strategy.name} {self._shapes}".encode()
        return []


class Engine:
    num_io_tensors = 3

    def __init__(self, plan: bytes, logger: Any) -> None:
        self.plan, self._logger = plan, logger

    def create_runtime_config(self) -> Settings:
        return Settings()

    def create_execution_context(self, settings: Settings) -> Context | None:
        if self.plan == b"no context":
            self._logger.log(ILogger.ERROR, "out of registers")
            return None
        if self.plan == b"die":
            os.abort()
        if self.plan == b"slow":
            time.sleep(1)
        return Context(self, settings)

    def get_tensor_name(self, index: int) -> str:
        return ("x", "weight", "y")[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.OUTPUT if name == "y" else TensorIOMode.INPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (8, 8) if name == "weight" else (-1, 8)

    def get_tensor_profile_shape(self, name: str, profile: int) -> tuple[tuple[int, ...], ...]:
        assert (name, profile) == ("x", 0), "shapes that are fixed need not be set"
        return ((4, 8),) * 3


class Runtime:
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        if plan == b"refused":
            self._logger.log(ILogger.ERROR, "no such plan")
            return None
        return Engine(plan, self._logger)
