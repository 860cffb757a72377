"""Plans come from the engine file, or are built once and found again, and run on the addresses that they are given."""

from __future__ import annotations

import ctypes
import gc
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
from fake_cuda import FakeCuda

from litevlm_ros.engines.block_graph import FLOAT, ROWS, BlockGraph, BlockTensor
from litevlm_ros.engines.plan_archive import PlanArchive, PlanKey, write_archive
from litevlm_ros.errors import EngineError
from litevlm_ros.model_directory import TEXT
from litevlm_ros.runtime.tensorrt import plans as plans_module
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kept_files import KeptFiles
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Room
from litevlm_ros.runtime.tensorrt.plans import Block, BlockPlans
from litevlm_ros.runtime.tensorrt.weights import RunWeights


def scaling(body: str = "Mul(x, weight)") -> bytes:
    """A block that multiplies each row by a weight."""
    return BlockGraph(
        "scaling",
        (BlockTensor("x", FLOAT, (ROWS, 4)),),
        (BlockTensor("weight", FLOAT, (1, 4)),),
        (BlockTensor("y", FLOAT, (ROWS, 4)),),
        f"  y = {body}\n",
    ).serialized()


class Bench:
    """An engine file with plans for 2 and 8 rows, opened on a fake GPU."""

    def __init__(self, cuda: FakeCuda, directory: Path) -> None:
        self.cuda = cuda
        self.file = directory / "text_decoder_fp16.engine"
        self.cache = directory / "text_decoder_fp16.runtime_cache"
        self.device = CudaDevice()
        self.memory = DeviceMemory(self.device)
        self.built: list[PlanKey] = []
        self._opened: list[BlockPlans] = []
        self.write(scaling())

    def write(self, graph: bytes, kernels: bytes = b"") -> None:
        keys = PlanKey("scaling", 2), PlanKey("scaling", 8)
        made = {key: (fake_tensorrt.plan_of(graph, key), kernels) for key in keys}
        write_archive(self.file, TEXT, "fp16", {"scaling": graph}, made, {})

    def open(self) -> BlockPlans:
        """The plans as after a new start."""
        self.room = Room(self.device, self.memory, "working memory")
        self._opened.append(BlockPlans(PlanArchive.open(self.file), self.device, self.room))
        return self._opened[-1]

    def run(self, block: Block, rows: int, weight: float = 3.0) -> Any:
        """Runs a block on rows of 0, 1, 2 ... and returns its output."""
        x, scale, y = (self.memory.allocate("tensors", size) for size in (16 * rows, 16, 16 * rows))
        self.memory.write(x, np.arange(4 * rows, dtype=np.float32))
        self.memory.write(scale, np.full(4, weight, np.float32))
        block.piece(RunWeights({"weight": scale}, lambda: None), {"x": x, "y": y, "other": 0}, "x", "y")()
        self.device.wait()
        return np.frombuffer(ctypes.string_at(y, 16 * rows), np.float32)

    def close(self) -> None:
        self.device.wait()
        for plans in self._opened:
            plans.close()
        self.memory.free()
        assert (self.cuda.live, self.cuda.taken) == ({}, 0)


@pytest.fixture(params=[False], ids=["tensorrt"])
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bench]:
    """With TensorRT, or TensorRT-RTX where a test asks for it."""
    cuda = FakeCuda()
    fake_tensorrt.install(monkeypatch, cuda, rtx=request.param)
    bench = Bench(cuda, tmp_path)
    build = plans_module.build_plan

    def count(graph: bytes, key: PlanKey, *arguments: Any) -> bytes:
        bench.built.append(key)
        return build(graph, key, *arguments)

    monkeypatch.setattr(plans_module, "build_plan", count)
    with bench.device:
        yield bench
        bench.close()
    fake_tensorrt.forget()


on_rtx = pytest.mark.parametrize("bench", [True], ids=["rtx"], indirect=True)


def kept(bench: Bench) -> list[str]:
    return sorted(file.name for file in bench.cache.iterdir()) if bench.cache.is_dir() else []


# --- from the engine file


def test_a_plan_of_the_file_runs_on_the_addresses_it_is_given(bench: Bench) -> None:
    plans = bench.open()
    block = plans.block("scaling", 8)
    np.testing.assert_array_equal(bench.run(block, 8), 3 * np.arange(32))
    np.testing.assert_array_equal(bench.run(block, 8, -1.0), -np.arange(32))
    assert plans.block("scaling", 8) is block
    assert bench.built == []
    assert kept(bench) == []


def test_weights_are_unpacked_before_each_run(bench: Bench) -> None:
    block, order = bench.open().block("scaling", 2), list[str]()
    bench.device.stream.enqueue(lambda: order.append("before"))
    scale = bench.memory.allocate("tensors", 16)

    def unpack() -> None:
        bench.device.stream.enqueue(lambda: order.append("unpacked"))

    places = {name: bench.memory.allocate("tensors", 32) for name in "xy"}
    piece = block.piece(RunWeights({"weight": scale}, unpack), places, "x", "y")
    piece()
    piece()
    bench.device.wait()
    assert order == ["before", "unpacked", "unpacked"]


def test_blocks_share_working_memory_and_follow_it(bench: Bench) -> None:
    plans = bench.open()
    small = plans.block("scaling", 2)
    before = bench.run(small, 2)
    plans.block("scaling", 8)
    assert bench.memory.by_purpose()["working memory"] == 8192, "that of the larger one, to a multiple of 256"
    np.testing.assert_array_equal(bench.run(small, 2), before)


def test_a_block_that_nobody_uses_is_freed_and_made_again(bench: Bench) -> None:
    plans = bench.open()
    block, other = plans.block("scaling", 2), plans.block("scaling", 8)
    taken = bench.cuda.taken
    del block
    assert bench.cuda.taken < taken
    np.testing.assert_array_equal(bench.run(plans.block("scaling", 2), 2), 3 * np.arange(8))
    np.testing.assert_array_equal(bench.run(other, 8), 3 * np.arange(32))


def test_what_cannot_run_says_which_plan(bench: Bench) -> None:
    block = bench.open().block("scaling", 2)
    with pytest.raises(EngineError, match=r"^text_decoder_fp16\.engine, scaling-2 does not take the address of x: "):
        block.enqueue({"x": 4})
    with pytest.raises(EngineError, match=r"^text_decoder_fp16\.engine, scaling-2 did not run: "):
        block.enqueue({})


# --- unforeseen sizes


def test_an_unforeseen_plan_is_built_once_and_found_at_the_next_start(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(2):
        plans = bench.open()
        for _ in range(2):
            np.testing.assert_array_equal(bench.run(plans.block("scaling", 5), 5), 3 * np.arange(20))
    assert bench.built == [PlanKey("scaling", 5)]
    assert "text_decoder_fp16.engine: building a plan for scaling-5, once" in caplog.text
    (name,) = kept(bench)
    assert name.startswith("scaling-5-")
    assert name.endswith(".plan")


@pytest.mark.parametrize("place", ["file", "directory"])
def test_a_plan_that_somebody_else_could_have_written_is_not_taken(bench: Bench, place: str) -> None:
    bench.open().block("scaling", 5)
    (name,) = kept(bench)
    other = fake_tensorrt.plan_of(scaling("Sub(x, weight)"), PlanKey("scaling", 5))
    KeptFiles(bench.file).write(name, other)
    {"file": bench.cache / name, "directory": bench.cache}[place].chmod(0o777)
    np.testing.assert_array_equal(bench.run(bench.open().block("scaling", 5), 5), 3 * np.arange(20))
    assert len(bench.built) == 2


def test_a_kept_plan_of_another_model_is_not_taken(bench: Bench) -> None:
    bench.open().block("scaling", 5)
    bench.write(scaling("Add(x, weight)"))
    np.testing.assert_array_equal(bench.run(bench.open().block("scaling", 5), 5), 3 + np.arange(20))
    assert len(bench.built) == len(kept(bench)) == 2


def test_a_kept_plan_that_tensorrt_does_not_load_is_built_anew(bench: Bench) -> None:
    """Such as one of another TensorRT."""
    bench.open().block("scaling", 5)
    (name,) = kept(bench)
    KeptFiles(bench.file).write(name, b"another version")
    for _ in range(2):
        np.testing.assert_array_equal(bench.run(bench.open().block("scaling", 5), 5), 3 * np.arange(20))
    assert len(bench.built) == 2


def test_what_cannot_be_kept_is_said_and_runs(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench.cache.write_text("where a directory should be, which root cannot write to either")
    for _ in range(2):
        np.testing.assert_array_equal(bench.run(bench.open().block("scaling", 5), 5), 3 * np.arange(20))
    assert len(bench.built) == 2
    assert f"{bench.cache}/scaling-5-" in caplog.text
    assert "so it is made again at each start" in caplog.text
    caplog.clear()
    gc.collect()  # what a record's error has held


def test_a_block_that_the_file_does_not_have_is_an_error_with_the_fix(bench: Bench) -> None:
    with pytest.raises(
        EngineError, match=r"has no graph of 'other'; build it again with `ros2 run litevlm_ros build_en"
    ):
        bench.open().block("other", 2)


def test_a_plan_that_tensorrt_does_not_load_is_an_error_with_the_fix(bench: Bench) -> None:
    contents = bench.file.read_bytes()
    bench.file.write_bytes(contents.replace(b"fake plan", b"no plan !"))
    with pytest.raises(
        EngineError, match=r"does not load its plan scaling-2: magicTag.*; build it again with `ros2 run"
    ):
        bench.open().block("scaling", 2)


# --- kernels of TensorRT-RTX


@on_rtx
def test_kernels_that_were_compiled_here_are_kept(bench: Bench) -> None:
    for _ in range(2):
        plans = bench.open()
        np.testing.assert_array_equal(bench.run(plans.block("scaling", 2), 2), 3 * np.arange(8))
        (name,) = kept(bench)
        assert name.startswith("scaling-2-")
        assert name.endswith(".kernels")
        assert KeptFiles(bench.file).read(name) == b"kernels ", "compiled once"
    plans.block("scaling", 5)
    assert [name.rpartition(".")[2] for name in kept(bench)] == ["kernels", "kernels", "plan"]


@on_rtx
def test_kernels_of_the_file_are_used(bench: Bench) -> None:
    bench.write(scaling(), b"kernels ")
    bench.run(bench.open().block("scaling", 8), 8)
    assert kept(bench) == []


@on_rtx
@pytest.mark.parametrize("place", ["kept", "in the file"])
def test_kernels_that_tensorrt_rtx_refuses_are_compiled_and_kept(bench: Bench, place: str) -> None:
    """Such as those of another version: compiled at one start, and found at the next one."""
    if place == "kept":
        bench.open().block("scaling", 2)
        (name,) = kept(bench)
        KeptFiles(bench.file).write(name, b"of another version")
    else:
        bench.write(scaling(), b"of another version")
    bench.open().block("scaling", 2)
    (name,) = kept(bench)
    file = bench.cache / name
    assert KeptFiles(bench.file).read(name) == b"kernels "
    written = file.stat().st_mtime_ns
    bench.open().block("scaling", 2)
    assert file.stat().st_mtime_ns == written


@on_rtx
def test_kernels_that_somebody_else_could_have_written_are_not_taken(bench: Bench) -> None:
    bench.open().block("scaling", 2)
    (name,) = kept(bench)
    KeptFiles(bench.file).write(name, b"kernels of another ")
    (bench.cache / name).chmod(0o666)
    bench.open().block("scaling", 2)
    assert KeptFiles(bench.file).read(name) == b"kernels "
