"""Token selection as CUDA kernels: the arithmetic of `vision/token_selection.py`, to the last bit.

A tile's tokens become directions in fixed point, these a matrix of cosines, and from its rows one warp takes token by
token. That is as many dependent steps as tokens are kept, so a step is nothing but reading one row of the matrix and
finding the largest of its values.
"""

from __future__ import annotations

from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.nvrtc import compile_kernels
from litevlm_ros.vision.token_selection import COSINE_ONE, DIRECTION_ONE, RANDOM_SEED

MOST_TOKENS = 1024
"""Of a tile: their places take ten bits, and what is known of them lies in shared memory."""
KINDS = {"FLOAT": 0, "HALF": 1, "BF16": 2}
"""How kernels call the types of visual tokens, by TensorRT's names."""
METHODS = {"random": 0, "diversity": 1, "similarity": 2}

_EDGE, _WARP, _COPYING = 16, 32, 128

SOURCE = f"""
#define COSINE_ONE {COSINE_ONE}
#define DIRECTION_ONE {DIRECTION_ONE}.0
#define RANDOM_SEED {RANDOM_SEED}u
#define MOST_TOKENS {MOST_TOKENS}
#define EDGE {_EDGE}
#define ALL 0xffffffffu
""" + r"""
union Number { unsigned bits; float value; };

// Number `at` of fp32 (kind 0), fp16 (1) or bf16 (2) numbers, exactly.
__device__ float number(const void *numbers, size_t at, int kind)
{
    Number one;
    if (kind == 0)
        return ((const float *)numbers)[at];
    const unsigned half = ((const unsigned short *)numbers)[at];
    if (kind == 2) {
        one.bits = half << 16;
        return one.value;
    }
    if ((half & 0x7c00) == 0x7c00) {  // infinite or not a number
        one.bits = (half & 0x8000) << 16 | 0x7f800000 | (half & 0x3ff) << 13;
        return one.value;
    }
    one.bits = (half & 0x7fff) << 13;
    one.value *= 5.192296858534828e33f;  // 2^112, between the exponents' biases
    one.bits |= (half & 0x8000) << 16;
    return one.value;
}

// Rows [tokens, width] to directions of the same shape. One warp for each token.
extern "C" __global__ void directions(const void *rows, short *unit, int width, int kind)
{
    const size_t first = (size_t)blockIdx.x * width;
    double sum = 0;
    for (int i = threadIdx.x; i < width; i += 32) {
        const double value = number(rows, first + i, kind);
        sum += value * value;
    }
    for (int step = 16; step; step /= 2)
        sum += __shfl_xor_sync(ALL, sum, step);
    const double length = sqrt(sum);
    const bool sound = length > 0 && length - length == 0;
    for (int i = threadIdx.x; i < width; i += 32)
        unit[first + i] = sound ? (short)rint(number(rows, first + i, kind) * (DIRECTION_ONE / length)) : 0;
}

// Directions [tiles, tokens, width] to cosines [tiles, tokens, tokens]. `words` is width / 2: two numbers at a time.
extern "C" __global__ void cosines(const int *unit, int *result, int tokens, int words)
{
    __shared__ int left[EDGE][EDGE + 1], right[EDGE][EDGE + 1];
    const int x = threadIdx.x, y = threadIdx.y;
    const int column = blockIdx.x * EDGE, row = blockIdx.y * EDGE;
    const int *tile = unit + (size_t)blockIdx.z * tokens * words;
    int sum = 0;
    for (int begin = 0; begin < words; begin += EDGE) {
        const bool there = begin + x < words;
        left[y][x] = there && row + y < tokens ? tile[(size_t)(row + y) * words + begin + x] : 0;
        right[y][x] = there && column + y < tokens ? tile[(size_t)(column + y) * words + begin + x] : 0;
        __syncthreads();
        for (int i = 0; i < EDGE; ++i) {
            const int a = left[y][i], b = right[x][i];
            sum += (short)a * (short)b + (a >> 16) * (b >> 16);
        }
        __syncthreads();
    }
    if (row + y < tokens && column + x < tokens)
        result[((size_t)blockIdx.z * tokens + row + y) * tokens + column + x] = sum;
}

// The finalizer of MurmurHash3.
__device__ unsigned mix(unsigned bits)
{
    bits = (bits ^ bits >> 16) * 0x85EBCA6Bu;
    bits = (bits ^ bits >> 13) * 0xC2B2AE35u;
    return bits ^ bits >> 16;
}

// The `keep` tokens of each tile, ascending, as rows among all tokens: places [tiles, keep]. One warp for each tile.
extern "C" __global__ void choose(const void *rows, const int *cosines, int *places, int tokens, int width, int kind,
                                  int keep, int method)
{
    // Each thread reads and writes its own tokens only.
    __shared__ int importance[MOST_TOKENS], nearest[MOST_TOKENS];
    __shared__ bool taken[MOST_TOKENS];
    const int lane = threadIdx.x;
    const size_t first = (size_t)blockIdx.x * tokens;
    const int *tile = cosines + first * tokens;
    for (int i = lane; i < tokens; i += 32) {
        taken[i] = false;
        nearest[i] = 0;
        if (method == 0) {
            Number one;
            one.value = number(rows, (first + i) * width, kind);
            importance[i] = mix(one.bits ^ (unsigned)i * RANDOM_SEED) >> 1;
        } else {
            long long distance = (long long)tokens * COSINE_ONE;
            for (int j = 0; j < tokens; ++j)
                distance -= tile[(size_t)j * tokens + i];
            importance[i] = distance / tokens - (distance % tokens < 0);
        }
    }
    int last = -1;
    for (int step = 0; step < keep; ++step) {
        long long best = -0x7fffffffffffffffll;
        for (int i = lane; i < tokens; i += 32) {
            if (step && method) {
                const int distance = COSINE_ONE - tile[(size_t)last * tokens + i];
                nearest[i] = step == 1 || distance < nearest[i] ? distance : nearest[i];
                if (method == 1)
                    importance[i] = 0;
            }
            // The value, and below it the place, so that of equal values the first is the largest.
            const long long key = ((long long)importance[i] + nearest[i]) * MOST_TOKENS + (MOST_TOKENS - 1 - i);
            if (!taken[i] && key > best)
                best = key;
        }
        for (int distance = 16; distance; distance /= 2) {
            const long long other = __shfl_xor_sync(ALL, best, distance);
            best = other > best ? other : best;
        }
        last = MOST_TOKENS - 1 - (int)(best & (MOST_TOKENS - 1));
        if (last % 32 == lane)
            taken[last] = true;
    }
    int before = 0;
    for (int begin = 0; begin < tokens; begin += 32) {
        const bool is_kept = begin + lane < tokens && taken[begin + lane];
        const unsigned kept = __ballot_sync(ALL, is_kept);
        if (is_kept)
            places[(size_t)blockIdx.x * keep + before + __popc(kept & ((1u << lane) - 1))] = first + begin + lane;
        before += __popc(kept);
    }
}

// Row places[blockIdx.x] of `rows`; a row is `row` times 16 bytes.
extern "C" __global__ void gather(const uint4 *rows, const int *places, uint4 *result, int row)
{
    const uint4 *from = rows + (size_t)places[blockIdx.x] * row;
    uint4 *to = result + (size_t)blockIdx.x * row;
    for (int i = threadIdx.x; i < row; i += blockDim.x)
        to[i] = from[i];
}
"""  # fmt: skip


class SelectionKernels:
    """The kernels for tiles of one shape, enqueued on the device's stream. All addresses are of device memory."""

    def __init__(self, device: CudaDevice, tokens: int, width: int, kind: str) -> None:
        """`tokens` a tile, at most MOST_TOKENS, of an even `width` of `kind`. Raises EngineError."""
        self._device = device
        self._tokens, self._width, self._kind = tokens, width, KINDS[kind]
        self._module = device.driver.module_from_buffer(compile_kernels(SOURCE, device.compute_capability))
        kinds = {"directions": "PPii", "cosines": "PPii", "choose": "PPPiiiii", "gather": "PPPi"}
        self._kernels = {name: self._module.get_function(name).prepare(of) for name, of in kinds.items()}

    def compare(self, tiles: int, rows: int, unit: int, cosines: int) -> None:
        """Cosines int32 [tiles, T, T] of visual tokens [tiles, T, H], by way of directions int16 [tiles, T, H]."""
        blocks = -(-self._tokens // _EDGE)
        self._call("directions", (tiles * self._tokens, 1), (_WARP, 1, 1), rows, unit, self._width, self._kind)
        self._call("cosines", (blocks, blocks, tiles), (_EDGE, _EDGE, 1), unit, cosines, self._tokens, self._width // 2)

    def choose(self, method: str, keep: int, tiles: int, rows: int, cosines: int, places: int) -> None:
        """Places int32 [tiles, keep] among all tokens. Random choice reads no cosines."""
        numbers = self._tokens, self._width, self._kind, keep, METHODS[method]
        self._call("choose", (tiles, 1), (_WARP, 1, 1), rows, cosines, places, *numbers)

    def gather(self, count: int, rows: int, places: int, result: int, row_bytes: int) -> None:
        """Copies `count` rows, whose bytes are a multiple of 16."""
        self._call("gather", (count, 1), (_COPYING, 1, 1), rows, places, result, row_bytes // 16)

    def close(self) -> None:
        """Unloads the kernels."""
        self._kernels.clear()
        del self._module

    def _call(self, name: str, grid: tuple[int, ...], block: tuple[int, ...], *arguments: int) -> None:
        self._kernels[name].prepared_async_call(grid, block, self._device.stream, *arguments)
