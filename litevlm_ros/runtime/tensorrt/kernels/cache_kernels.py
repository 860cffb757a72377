"""The two kernels that make a decode step whole without the host: append to the cache, and go on to the next token.

They are compiled by NVRTC for the GPU at hand when a model is loaded, which takes some 50 ms and needs no CUDA toolkit.
"""

from __future__ import annotations

from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.nvrtc import compile_kernels

SOURCE = r"""
// New keys and values: from [tensors, staged_rows, row] to rows past_length .. past_length + count of
// [tensors, cache_rows, row]; a row is `row` times 16 bytes. One blockIdx.x per tensor.
extern "C" __global__ void append_rows(const uint4 *staged, uint4 *cache, const long long *past_length,
                                       const long long *count, int row, int staged_rows, int cache_rows)
{
    const uint4 *from = staged + (size_t)blockIdx.x * staged_rows * row;
    uint4 *to = cache + ((size_t)blockIdx.x * cache_rows + *past_length) * row;
    const long long words = *count * row;
    for (long long i = blockIdx.y * blockDim.x + threadIdx.x; i < words; i += gridDim.y * blockDim.x)
        to[i] = from[i];
}

// The token that was found becomes the next step's input, and the host's ring gets it too.
extern "C" __global__ void advance(const long long *next_token, long long *input_id, long long *position,
                                   long long *past_length, long long *step, volatile long long *ring, int ring_size)
{
    const long long token = *next_token;
    ring[*step % ring_size] = token;
    *input_id = token;
    *position += 1;
    *past_length += 1;
    *step += 1;
}
"""

_THREADS = 128
_MOST_BLOCKS = 16
_WORD = 16


class CacheKernels:
    """Both kernels, enqueued on the device's stream. All addresses are of device memory, counters are int64."""

    def __init__(self, device: CudaDevice) -> None:
        """Raises EngineError if NVRTC is missing or refuses."""
        self._device = device
        module = device.driver.module_from_buffer(compile_kernels(SOURCE, device.compute_capability))
        self._module = module
        self._append = module.get_function("append_rows").prepare("PPPPiii")
        self._advance = module.get_function("advance").prepare("PPPPPPi")

    def append(
        self,
        *,
        staged: int,
        cache: int,
        past_length: int,
        count: int,
        tensors: int,
        row_bytes: int,
        staged_rows: int,
        cache_rows: int,
    ) -> None:
        """Copies the first rows of each of `tensors` staged blocks behind the valid rows of its cache.

        `past_length` and `count` are addresses of int64 counters; `row_bytes` is a multiple of 16.
        """
        row = row_bytes // _WORD
        blocks = min(_MOST_BLOCKS, -(-staged_rows * row // _THREADS))
        self._append.prepared_async_call(
            (tensors, blocks),
            (_THREADS, 1, 1),
            self._device.stream,
            *(staged, cache, past_length, count, row, staged_rows, cache_rows),
        )

    def advance(
        self, *, next_token: int, input_id: int, position: int, past_length: int, step: int, ring: int, ring_size: int
    ) -> None:
        """Moves the token to the next step's input and to `ring[step % ring_size]`, and counts one further."""
        self._advance.prepared_async_call(
            (1, 1),
            (1, 1, 1),
            self._device.stream,
            *(next_token, input_id, position, past_length, step, ring, ring_size),
        )

    def close(self) -> None:
        """Unloads the kernels."""
        del self._append, self._advance, self._module
