"""What there is to know about a loaded model, for those who may not touch it because it belongs to another thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from litevlm_ros.machine import find_device


@dataclass(frozen=True)
class ModelFacts:
    """Of one loaded pipeline."""

    backend: str
    """Versions, device and precision in words."""
    gpu: str
    """Its name; '' without one."""
    fingerprints: Mapping[str, str]
    """Engine file → SHA-256 of its contents, as its sidecar has it."""
    device_memory: Callable[[], Mapping[str, int]]
    """Bytes of device memory by purpose, now. Any thread may call it."""


def model_facts(pipeline: Any) -> ModelFacts:
    """Of a Pipeline, or of what stands in for one and has no backend. Asks the GPU's driver, which may take a while."""
    backend, device = getattr(pipeline, "backend", None), find_device()
    gpu = "" if device is None else device.name
    if backend is None:
        return ModelFacts("", gpu, {}, dict)
    return ModelFacts(backend.description, gpu, backend.fingerprints, backend.memory)
