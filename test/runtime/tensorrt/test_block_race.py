"""Blocks by cuDNN and by plans are timed on a fake GPU, on which they sleep."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from block_bench import MODEL
from fake_cuda import FakeCuda

from litevlm_ros.engines.graphs import block_graphs
from litevlm_ros.errors import EngineError
from litevlm_ros.model_directory import VISION
from litevlm_ros.runtime.tensorrt import block_race
from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.block_check import BlockCheck
from litevlm_ros.runtime.tensorrt.block_race import RACING, BlockRace
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kept_files import KeptFiles
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory

ROWS = 68
FAST, SLOW = 0.0, 0.01
"""Seconds of a run. Work beside the test makes a fast run longer by less, in the best of some."""


class Sleeper(Block):
    """A block that takes `seconds` of the fake GPU's time."""

    def __init__(self, bench: Bench, seconds: float) -> None:
        self._bench, self._seconds = bench, seconds

    def enqueue(self, addresses: Mapping[str, int]) -> None:
        self._bench.runs += 1
        stream: Any = self._bench.device.stream
        stream.enqueue(lambda: time.sleep(self._seconds))


class Bench:
    def __init__(self, directory: Path) -> None:
        self.device, self.runs = CudaDevice(), 0
        with self.device:
            self.memory = DeviceMemory(self.device)
        check = BlockCheck(VISION, block_graphs(VISION, "fp16", MODEL), MODEL, "fp16", self.device, self.memory)
        self.race = BlockRace(check, KeptFiles(directory / "x.engine"), self.device)

    def plan_wins(
        self, plan: float, products: float, name: str = "mlp", rows: int = ROWS, version: str = "9.1"
    ) -> bool:
        return self.wins(lambda: Sleeper(self, plan), products, name, rows, version)

    def wins(
        self, make_plan: Callable[[], Block], products: float, name: str = "mlp", rows: int = ROWS, version: str = "9.1"
    ) -> bool:
        block = Sleeper(self, products)
        with self.device:
            return self.race.winner(name, rows, version, block, make_plan) is not block


@pytest.fixture
def bench(cuda: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(block_race, "LEAST_ROWS", ROWS)
    bench = Bench(tmp_path)
    yield bench
    assert not cuda.graphs, "a recording was not freed"
    with bench.device:
        assert not bench.memory.by_purpose(), "samples are freed"
        bench.memory.free()
    bench.device.close()


@pytest.mark.parametrize("name", RACING)
def test_the_faster_one_wins(bench: Bench, name: str) -> None:
    assert bench.plan_wins(FAST, SLOW, name)
    assert not bench.plan_wins(SLOW, FAST, name, rows=ROWS + 17)


def test_the_winner_is_kept_until_a_library_changes(bench: Bench) -> None:
    assert bench.plan_wins(FAST, SLOW)
    runs = bench.runs
    assert bench.plan_wins(SLOW, FAST), "what was measured before holds"
    assert bench.runs == runs
    assert not bench.plan_wins(SLOW, FAST, version="9.2")


def test_a_kept_file_that_is_damaged_is_written_again(bench: Bench, tmp_path: Path) -> None:
    assert bench.plan_wins(FAST, SLOW)
    (file,) = tmp_path.rglob("*.winner")
    file.write_bytes(b"plan\0")
    assert not bench.plan_wins(SLOW, FAST)
    assert KeptFiles(tmp_path / "x.engine").read(file.name) == b"products"


def test_small_blocks_and_those_that_run_once_are_not_compared(bench: Bench) -> None:
    assert not bench.plan_wins(FAST, SLOW, rows=ROWS - 1)
    assert not bench.plan_wins(FAST, SLOW, "projector")
    assert not bench.runs


def test_a_plan_that_cannot_be_made_does_not_win(bench: Bench, tmp_path: Path) -> None:
    def refuse() -> Block:
        raise EngineError("there is no room")

    assert not bench.wins(refuse, SLOW)
    assert not [*tmp_path.rglob("*.winner")], "it may be there next time"
    assert bench.plan_wins(FAST, SLOW)
    assert not bench.wins(refuse, SLOW), "there may be no room for it any more"


def test_without_recordings_nothing_is_compared(bench: Bench, cuda: FakeCuda) -> None:
    cuda.refuse_capture = True
    assert not bench.plan_wins(FAST, SLOW)
