"""Programs run what they are made of, first piece by piece and then as one graph."""

from __future__ import annotations

from collections.abc import Iterator

import fake_tensorrt
import pytest
from fake_cuda import FakeCuda

from litevlm_ros.errors import EngineError
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.program import Program


class Bench:
    """A device on which a program writes down what it does."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.device = CudaDevice()
        self.enqueued: list[str] = []
        self.done: list[str] = []

    def program(self) -> Program:
        def piece(name: str) -> None:
            self.enqueued.append(name)
            self.device.stream.enqueue(lambda: self.done.append(name))

        return Program(self.device, "a program", [lambda: piece("first"), lambda: piece("second")])

    def run(self, program: Program) -> list[str]:
        """Runs a program and returns what was done."""
        self.done.clear()
        self.enqueued.clear()
        program.run()
        self.device.wait()
        return self.done


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    cuda = FakeCuda()
    fake_tensorrt.install(monkeypatch, cuda)
    bench = Bench(cuda)
    with bench.device:
        yield bench
    bench.device.close()
    fake_tensorrt.forget()


def test_it_runs_once_and_is_a_graph_from_then_on(bench: Bench) -> None:
    program = bench.program()
    assert bench.done == ["first", "second"], "once, as what is recorded does not run"
    assert bench.run(program) == ["first", "second"]
    assert bench.enqueued == []
    assert bench.cuda.launches == 1
    program.close()
    assert bench.cuda.graphs == {}


def test_a_graph_that_is_forgotten_is_recorded_at_the_next_run(bench: Bench) -> None:
    program = bench.program()
    program.forget_graph()
    assert bench.cuda.graphs == {}
    assert bench.run(program) == ["first", "second"], "not twice"
    assert bench.cuda.launches == 0
    assert bench.run(program) == ["first", "second"]
    assert bench.cuda.launches == 1
    program.close()


def test_without_graphs_it_runs_piece_by_piece_and_says_so_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.cuda.refuse_capture = True
    program = bench.program()
    for _ in range(2):
        assert bench.run(program) == ["first", "second"]
        assert bench.enqueued == ["first", "second"]
    assert bench.cuda.launches == 0
    (record,) = caplog.records
    assert record.getMessage().startswith("a program runs without a CUDA graph, which is slower: ")
    program.close()


def test_an_error_of_a_piece_is_not_hidden(bench: Bench) -> None:
    def fail() -> None:
        raise EngineError("no")

    with pytest.raises(EngineError, match="no"):
        Program(bench.device, "a program", [fail])
