"""Upload of tensors from files to the device, once and without a copy of a whole file in host memory.

A file is read in pieces into two pinned buffers, so that the next piece is read while the last one is on its way. On
the device, a kernel converts the numbers of each piece into their final places.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from litevlm_ros.checkpoint.files import ITEM_BYTES, StoredTensor, unreadable
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.weights import WeightKernels
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory

PIECE_BYTES = 32 << 20
"""The size of a buffer: large enough that the pauses between pieces do not count."""
_GAP_BYTES = 64 << 10
"""Bytes that nobody wants are read along, up to so many, rather than a new piece begun."""


@dataclass(frozen=True)
class Transfer:
    """A stored tensor and its place at the address `target`.

    `kind` is the type it is converted to, one of F32, F16 and BF16, or '' for bytes that are copied as they are.
    Converted numbers are rows of `columns`, which lie `stride` numbers apart.
    """

    stored: StoredTensor
    target: int
    kind: str = ""
    columns: int = 1
    stride: int = 1


@dataclass(frozen=True)
class Slice:
    """`length` bytes of a transfer's tensor, from byte `begin` of it; they lie at byte `place` of their piece."""

    transfer: Transfer
    begin: int
    place: int
    length: int


@dataclass(frozen=True)
class Piece:
    """`length` bytes from `offset` of `file`, and the slices of tensors in them."""

    file: Path
    offset: int
    length: int
    slices: Sequence[Slice]


def pieces(transfers: Iterable[Transfer], size: int) -> Iterator[Piece]:
    """Yields what to read for `transfers`: pieces of at most `size` bytes, in the order of the bytes in their files.

    Tensors are cut where a piece ends, but never within a number.
    """
    ordered = sorted(transfers, key=lambda transfer: (transfer.stored.file, transfer.stored.offset))
    for file, group in groupby(ordered, lambda transfer: transfer.stored.file):
        slices: list[Slice] = []
        start = end = 0
        for transfer in group:
            stored, item = transfer.stored, ITEM_BYTES[transfer.stored.dtype]
            begin = 0
            while begin < stored.length:
                at = stored.offset + begin
                if slices and not start <= at <= min(end + _GAP_BYTES, start + size - item):
                    yield Piece(file, start, end - start, slices)
                    slices = []
                if not slices:
                    start = end = at
                length = min(stored.length - begin, (start + size - at) // item * item)
                slices.append(Slice(transfer, begin, at - start, length))
                begin += length
                end = max(end, at + length)
        if slices:
            yield Piece(file, start, end - start, slices)


class WeightUpload:
    """Uploads on the device's stream. The device must be current in every call."""

    def __init__(self, device: CudaDevice, kernels: WeightKernels) -> None:
        """Allocates two pinned buffers and one on the device, of PIECE_BYTES each, until `close`."""
        self._device = device
        self._kernels = kernels
        self._size = PIECE_BYTES
        self._memory = DeviceMemory(device)
        self._staging = self._memory.allocate("upload", self._size)
        self._buffers = [(self._memory.pinned((self._size,), np.uint8), device.event()) for _ in range(2)]
        self._uploads = 0

    def run(self, transfers: Sequence[Transfer]) -> list[Transfer]:
        """Moves all `transfers` and waits. Returns those that hold a number which is not finite in its new type.

        Raises CheckpointError if a file cannot be read.
        """
        flags = self._memory.allocate("upload", 4 * len(transfers))
        bad = self._memory.pinned((len(transfers),), np.int32)
        numbers = {id(transfer): number for number, transfer in enumerate(transfers)}
        for piece in pieces(transfers, self._size):
            buffer, uploaded = self._free_buffer()
            _read(piece, buffer)
            self._device.driver.memcpy_htod_async(self._staging, buffer[: piece.length], self._device.stream)
            uploaded.record(self._device.stream)
            for part in piece.slices:
                self._place(part, flags + 4 * numbers[id(part.transfer)])
        self._device.driver.memcpy_dtoh_async(bad, flags, self._device.stream)
        self._device.wait()
        return [transfer for transfer, flag in zip(transfers, bad.tolist(), strict=True) if flag]

    def write(self, target: int, array: npt.NDArray[Any]) -> None:
        """Enqueues the upload of an array to the address `target`. The array may change as soon as this returns."""
        contents = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for begin in range(0, len(contents), self._size):
            part = contents[begin : begin + self._size]
            buffer, uploaded = self._free_buffer()
            buffer[: len(part)] = part
            self._device.driver.memcpy_htod_async(target + begin, buffer[: len(part)], self._device.stream)
            uploaded.record(self._device.stream)

    def close(self) -> None:
        """Frees the buffers, when all that was enqueued is done."""
        self._device.wait()
        self._buffers.clear()
        self._memory.free()

    def _free_buffer(self) -> tuple[npt.NDArray[np.uint8], Any]:
        """Returns the pinned buffer whose turn it is, when its last upload is done, and the event of its next one."""
        buffer, uploaded = self._buffers[self._uploads % 2]
        if self._uploads >= 2:
            uploaded.synchronize()
        self._uploads += 1
        return buffer, uploaded

    def _place(self, part: Slice, bad: int) -> None:
        transfer, source = part.transfer, self._staging + part.place
        if not transfer.kind:
            self._device.driver.memcpy_dtod_async(
                transfer.target + part.begin, source, part.length, self._device.stream
            )
            return
        item = ITEM_BYTES[transfer.stored.dtype]
        self._kernels.convert(
            source,
            transfer.stored.dtype,
            transfer.target,
            transfer.kind,
            bad,
            first=part.begin // item,
            count=part.length // item,
            columns=transfer.columns,
            stride=transfer.stride,
        )


def _read(piece: Piece, buffer: npt.NDArray[np.uint8]) -> None:
    """Reads the bytes of a piece into `buffer`. Raises CheckpointError."""
    try:
        with piece.file.open("rb", buffering=0) as opened:
            opened.seek(piece.offset)
            done = 0
            while done < piece.length:
                count = opened.readinto(buffer[done : piece.length].data)
                if not count:
                    raise ValueError(f"it ends at byte {piece.offset + done}")
                done += count
    except (OSError, ValueError) as error:
        raise unreadable(piece.file, error) from error
