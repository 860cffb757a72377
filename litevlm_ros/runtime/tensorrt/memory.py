"""Device memory, with accounts of what each purpose takes, libraries included."""

from __future__ import annotations

import contextlib
import math
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy.typing as npt

from litevlm_ros.errors import EngineError
from litevlm_ros.runtime.tensorrt.device import CudaDevice

ALIGNMENT = 256
"""TensorRT wants addresses that are multiples of this many bytes."""


class DeviceMemory:
    """Allocations on one device, each with its purpose. The device must be current in every call."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._allocations: dict[int, tuple[Any, str, int]] = {}
        self._pinned: list[npt.NDArray[Any]] = []
        self._bytes: Counter[str] = Counter()

    def allocate(self, purpose: str, size: int) -> int:
        """Returns the address of `size` new bytes, all zero. Raises EngineError if there is no room."""
        driver = self._device.driver
        try:
            allocation = driver.mem_alloc(max(size, ALIGNMENT))
        except driver.MemoryError as error:
            free, total = self._device.memory()
            raise EngineError(
                f"{purpose} needs {gigabytes(size)} of GPU memory, and {gigabytes(free)} of {gigabytes(total)} are "
                "free; stop other programs, use a smaller max_context, or engines of a lower precision "
                "(`ros2 run litevlm_ros build_engines --help`)"
            ) from error
        self._allocations[int(allocation)] = allocation, purpose, size
        self._bytes[purpose] += size
        driver.memset_d8_async(int(allocation), 0, size, self._device.stream)
        return int(allocation)

    def release(self, address: int) -> None:
        """Frees what `allocate` returned. The device must be done with it."""
        allocation, purpose, size = self._allocations.pop(address)
        allocation.free()
        self._bytes[purpose] -= size

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Allocates a zeroed array in host memory that the device copies from and to without another copy."""
        driver = self._device.driver
        array: npt.NDArray[Any] = driver.pagelocked_zeros(shape, dtype, mem_flags=driver.host_alloc_flags.DEVICEMAP)
        self._pinned.append(array)
        return array

    def release_pinned(self, array: npt.NDArray[Any]) -> None:
        """Frees an array that `pinned` returned. The device must be done with it."""
        self._pinned = [other for other in self._pinned if other is not array]
        base: Any = array.base
        base.free()

    def write(self, address: int, array: npt.NDArray[Any]) -> None:
        """Copies an array to the device and waits for it: for small things, and while loading."""
        staged = self.pinned(array.shape, array.dtype)
        staged[...] = array
        self._device.driver.memcpy_htod_async(address, staged, self._device.stream)
        self._device.wait()
        self.release_pinned(staged)

    def fill(self, address: int, size: int, array: npt.NDArray[Any]) -> None:
        """Writes an array, and then enqueues copies of what is there until `size` bytes are full of repetitions."""
        first = array[: max(1, size // array.itemsize)]
        self.write(address, first)
        filled = first.nbytes
        while filled < size:
            count = min(filled, size - filled)
            self._device.driver.memcpy_dtod_async(address + filled, address, count, self._device.stream)
            filled += count

    def read(self, address: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Returns an array from the device when all work on the stream is done: for small things, and while loading."""
        staged = self.pinned(shape, dtype)
        self._device.driver.memcpy_dtoh_async(staged, address, self._device.stream)
        self._device.wait()
        array = staged.copy()
        self.release_pinned(staged)
        return array

    def pinned_address(self, array: npt.NDArray[Any]) -> int:
        """Returns the address at which kernels see an array that `pinned` returned."""
        base: Any = array.base
        return int(base.get_device_pointer())

    @contextlib.contextmanager
    def measured(self, purpose: str) -> Iterator[None]:
        """Books what the block takes of the device's free memory, besides what is allocated here."""
        before, own = self._device.memory()[0], self._bytes.total()
        yield
        taken = before - self._device.memory()[0] - (self._bytes.total() - own)
        self._bytes[purpose] += max(taken, 0)

    def by_purpose(self) -> dict[str, int]:
        """Returns the bytes that each purpose takes, the largest first."""
        return {purpose: size for purpose, size in self._bytes.most_common() if size}

    def free(self) -> None:
        """Frees everything that was allocated here."""
        for allocation, _, _ in self._allocations.values():
            allocation.free()
        for array in self._pinned:
            base: Any = array.base
            base.free()
        self._allocations.clear()
        self._pinned.clear()
        self._bytes.clear()


class Slots:
    """Several small arrays in one allocation, each aligned. `slots[name]` is the address of one."""

    def __init__(self, memory: DeviceMemory, purpose: str, sizes: dict[str, int]) -> None:
        """Allocates arrays of `sizes` bytes by name. Raises EngineError if there is no room."""
        self.offsets: dict[str, int] = {}
        self.size = 0
        for name, size in sizes.items():
            self.offsets[name] = self.size
            self.size += aligned(size)
        self.address = memory.allocate(purpose, self.size)

    def __getitem__(self, name: str) -> int:
        return self.address + self.offsets[name]


class BlockPool:
    """Blocks of device memory that are used again when their holder is gone, on whichever thread that happens."""

    def __init__(self, memory: DeviceMemory, purpose: str) -> None:
        self._memory = memory
        self._purpose = purpose
        self._unused: defaultdict[int, list[int]] = defaultdict(list)

    def take(self, holder: object, size: int) -> int:
        """Returns the address of `size` bytes that stay `holder`'s while it lives. Raises EngineError without room."""
        unused = self._unused[size]
        address = unused.pop() if unused else self._memory.allocate(self._purpose, size)
        weakref.finalize(holder, self._give_back, size, address).atexit = False
        return address

    def _give_back(self, size: int, address: int) -> None:
        # Appending to a list needs no lock, whichever thread collects the holder.
        self._unused[size].append(address)


class Scratch:
    """Working memory that several kernels share, as they run one after the other.

    It grows by a new block, and kernels made earlier keep theirs, whose address graphs may hold. So it is for little
    memory.
    """

    def __init__(self, memory: DeviceMemory, purpose: str) -> None:
        self._memory = memory
        self._purpose = purpose
        self._address = 0
        self._size = 0

    def at_least(self, size: int) -> tuple[int, int]:
        """Returns address and size of a block of at least `size` bytes. Raises EngineError if there is no room."""
        if size > self._size or not self._address:
            self._address, self._size = self._memory.allocate(self._purpose, aligned(size)), aligned(size)
        return self._address, self._size


class Room:
    """Device memory that is replaced by more when more is needed; what it held is then lost."""

    def __init__(self, device: CudaDevice, memory: DeviceMemory, purpose: str) -> None:
        self._device = device
        self._memory = memory
        self._purpose = purpose
        self._size = 0
        self._moved: list[Callable[[], None]] = []
        self.address = 0
        """The present address; 0 before the first `at_least`."""

    def on_move(self, moved: Callable[[], None]) -> None:
        """Has `moved` called whenever the address is no longer what it was. Nothing runs on the device then."""
        self._moved.append(moved)

    def at_least(self, size: int) -> tuple[int, int]:
        """Returns address and size of the memory, which is at least `size` bytes. Raises EngineError without room."""
        if size > self._size or not self.address:
            before = self._size
            if before:
                self._device.wait()
                self._memory.release(self.address)
                self.address = self._size = 0
            try:
                self._allocate(aligned(size))
            except EngineError:
                if before:  # what is used by others must stay valid
                    self._allocate(before)
                raise
            finally:
                if before:
                    for moved in self._moved:
                        moved()
        return self.address, self._size

    def _allocate(self, size: int) -> None:
        self.address, self._size = self._memory.allocate(self._purpose, size), size


def places(address: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Returns the addresses of arrays of `sizes` bytes that lie one behind the other from `address`, each aligned."""
    found = {}
    for name, size in sizes.items():
        found[name] = address
        address += aligned(size)
    return found


def aligned(size: int) -> int:
    """Returns `size` rounded up to a multiple of ALIGNMENT, of which it is at least one."""
    return max(1, math.ceil(size / ALIGNMENT)) * ALIGNMENT


def gigabytes(size: int) -> str:
    """Writes 1234567890 as '1.23 GB', and sizes below 0.1 GB in MB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
