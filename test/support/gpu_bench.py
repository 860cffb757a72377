"""Helpers of the tests on a GPU: building and loading engines, questions to the demo model, and printed figures."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from litevlm_ros.backend import Backend
from litevlm_ros.config import PipelineConfig, SamplingConfig
from litevlm_ros.lab.benchmarking.exact_stages import sample_prompt
from litevlm_ros.lab.world.render import render
from litevlm_ros.lab.world.scene import generate
from litevlm_ros.machine import find_device
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.runtime.load import load_backend
from litevlm_ros.types import View

SLACK = 1.25
"""A time may be so many times its goal before a test fails: machines differ, and other programs run."""
SCENES, FEW_SCENES = 10, 5
"""The scenes that are asked about where many answers are compared, and where a load is to be short."""
QUESTIONS = ("What do you see?", "Is there a car?", "What is the weather?", "How many vehicles are there?")


def say(line: str) -> None:
    """Prints a line that `pytest -s` shows beside the test's name."""
    print(f"\n  >> {line}", end="", flush=True)


def is_h100() -> bool:
    """Tells whether this is the card for which times are set as goals."""
    device = find_device()
    return device is not None and "H100" in device.name


def hold(figure: str, value: float, goal: float, unit: str = "ms") -> None:
    """Prints a figure with its goal. On an H100 it asserts that the goal is held, with SLACK."""
    say(f"{figure}: {value:.3g} {unit} (goal {goal:g})")
    assert not is_h100() or value <= SLACK * goal, f"{figure}: {value:.3g} {unit}; the goal is {goal:g} {unit}"


def build(model: Path, *arguments: str) -> float:
    """Builds engines of a model directory into it, unless they are there, and returns the seconds that it took."""
    from litevlm_ros.tools.build_engines import main

    started = time.monotonic()
    assert main(["--model", str(model), *arguments]) == 0, f"build_engines failed: {' '.join(arguments)}"
    seconds = time.monotonic() - started
    say(f"{model.name}: build_engines {' '.join(arguments)} took {seconds:.1f} s")
    return seconds


def build_together(model: Path, *commands: Sequence[str]) -> None:
    """Builds engines of a model directory into it with several commands at a time, one for each four cores."""

    def run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "litevlm_ros.tools.build_engines", "--model", str(model), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    started = time.monotonic()
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 4)) as threads:
        for arguments, done in zip(commands, threads.map(run, commands), strict=True):
            assert done.returncode == 0, f"build_engines failed: {' '.join(arguments)}: {done.stderr}"
    say(f"{model.name}: {len(commands)} build_engines together took {time.monotonic() - started:.1f} s")


@contextlib.contextmanager
def loaded(model: Path, **settings: Any) -> Iterator[Backend]:
    """Yields the TensorRT backend of a model directory, and closes it."""
    config = PipelineConfig(model, backend="tensorrt", **settings)
    with contextlib.closing(load_backend(config, ModelConfig.from_directory(model))) as backend:
        yield backend


def answers(model: Path, scenes: int = SCENES, **settings: Any) -> list[str]:
    """Returns the answers to all QUESTIONS about each of some scenes, the first ones first."""
    texts = []
    with contextlib.closing(Pipeline.from_config(PipelineConfig(model, threads=8, **settings))) as pipeline:
        for seed in range(scenes):
            encoded = pipeline.encode([View("front", render(generate(seed), "front"))])
            texts += [pipeline.answer(encoded, question, SamplingConfig(48)).text for question in QUESTIONS]
    return texts


def equal_share(found: list[str], reference: list[str], what: str) -> float:
    """Prints and returns the share of answers that are equal. `reference` may be about more scenes than `found`."""
    reference = reference[: len(found)]
    equal = sum(a == b for a, b in zip(reference, found, strict=True))
    say(f"{what}: {equal} of {len(found)} answers are equal, such as {found[0]!r}")
    return equal / len(found)


def read(backend: Backend, model: ModelConfig, ids: Any, visual: Any) -> Any:
    """Has the decoder read a prompt from the beginning, and returns its output."""
    backend.text.cache.truncate(0)
    return backend.text.forward(ids, np.arange(len(ids)), visual)


def prompt(model: ModelConfig, length: int, tiles: int = 1) -> Any:
    """Returns ids of the visual tokens of some tiles among words."""
    return sample_prompt(model.text.vocab_size, length, tiles * model.vision.tokens_per_tile)
