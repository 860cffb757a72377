"""Device memory is counted and given back, and what grows tells those who use it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import fake_tensorrt
import pytest
from fake_cuda import FakeCuda

from litevlm_ros.errors import EngineError
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.memory import BlockPool, DeviceMemory, Room, Slots, aligned, gigabytes, places


class Bench:
    """A fake GPU with 1 MB of memory."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.device = CudaDevice()
        self.memory = DeviceMemory(self.device)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    cuda = FakeCuda(1 << 20)
    fake_tensorrt.install(monkeypatch, cuda)
    bench = Bench(cuda)
    with bench.device:
        yield bench
        bench.memory.free()
    assert cuda.live == {}
    fake_tensorrt.forget()


def test_memory_is_counted_by_purpose_until_it_is_released(bench: Bench) -> None:
    first, second = bench.memory.allocate("one", 1000), bench.memory.allocate("other", 3000)
    bench.memory.allocate("one", 500)
    assert bench.memory.by_purpose() == {"other": 3000, "one": 1500}
    bench.memory.release(first)
    assert bench.memory.by_purpose()["one"] == 500
    assert first not in bench.cuda.live
    assert second in bench.cuda.live


def test_what_libraries_take_is_counted_too(bench: Bench) -> None:
    with bench.memory.measured("libraries"):
        bench.memory.allocate("own", 1024)
        bench.cuda.taken += 5000
    assert bench.memory.by_purpose() == {"libraries": 5000, "own": 1024}


def test_arrays_lie_in_one_allocation_each_aligned(bench: Bench) -> None:
    slots = Slots(bench.memory, "slots", {"small": 3, "exact": 256, "empty": 0})
    assert [slots[name] - slots.address for name in ("small", "exact", "empty")] == [0, 256, 512]
    assert slots.size == 768
    assert places(1024, {"small": 3, "large": 257, "last": 1}) == {"small": 1024, "large": 1280, "last": 1792}


def test_a_block_is_used_again_when_its_holder_is_gone(bench: Bench) -> None:
    class Holder:
        pass

    pool, holder, other = BlockPool(bench.memory, "blocks"), Holder(), Holder()
    address = pool.take(holder, 1000)
    assert pool.take(other, 1000) != address
    del holder
    gc.collect()
    assert pool.take(other, 2000) != address, "blocks are of one size"
    assert pool.take(other, 1000) == address


def test_room_grows_and_tells_who_uses_it(bench: Bench) -> None:
    room, moves = Room(bench.device, bench.memory, "room"), list[int]()
    room.on_move(lambda: moves.append(room.address))
    assert room.at_least(1000) == (room.address, aligned(1000))
    first = room.address
    assert room.at_least(1024) == (first, 1024)
    assert not moves, "nobody could have used it before"
    address, size = room.at_least(5000)
    assert size == aligned(5000)
    assert moves == [address]
    assert first not in bench.cuda.live or first == address
    assert bench.memory.by_purpose() == {"room": size}


def test_room_that_cannot_grow_stays_usable(bench: Bench) -> None:
    """Those who use it have an address that is valid, whether it is the same or not."""
    room, moves = Room(bench.device, bench.memory, "room"), list[int]()
    room.on_move(lambda: moves.append(room.address))
    room.at_least(1000)
    with pytest.raises(EngineError, match=r"room needs .* MB of GPU memory"):
        room.at_least(1 << 21)
    assert moves == [room.address]
    assert room.address in bench.cuda.live
    assert room.at_least(1000) == (room.address, aligned(1000))


@pytest.mark.parametrize(("size", "text"), [(1234567890, "1.23 GB"), (123456, "0.1 MB"), (99_000_000, "99.0 MB")])
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert gigabytes(size) == text
