// Token selection with the arithmetic of vision/token_selection.py, equal to it in every bit.
//
// directions writes the tokens of a tile as unit vectors in fixed point, and cosines compares each with each. From the
// rows of that matrix, choose takes one token after the other with one warp for each tile. There are as many dependent
// steps as tokens are kept, so a step does no more than read one row and find its largest value. gather copies the
// tokens that were chosen.
//
// selection.py defines these macros, so that Python and CUDA share their values:
//   DIRECTION_ONE, COSINE_ONE   1 in the fixed point of directions and of cosines
//   RANDOM_SEED                 seed of the hashes of method random
//   MOST_TOKENS                 most tokens of a tile, a power of two
//   EDGE                        edge of the square blocks of cosines, in threads
//   KIND_FP32, ...             types of visual tokens
//   METHOD_RANDOM, ...          methods

// Returns number `at` of an array of fp32, fp16 or bf16 numbers as fp32, which holds each of them exactly.
__device__ float load(const void *numbers, size_t at, int kind)
{
    if (kind == KIND_FP32)
        return ((const float *)numbers)[at];
    const unsigned short half = ((const unsigned short *)numbers)[at];
    return kind == KIND_BF16 ? from_bf16(half) : from_half(half);
}

// Scales each of `rows` [tokens, width] to length DIRECTION_ONE and rounds it to `unit` [tokens, width]. A row that is
// zero or not finite has no direction and becomes zeros. One warp for each token.
extern "C" __global__ void directions(const void *rows, short *unit, int width, int kind)
{
    const size_t first = (size_t)blockIdx.x * width;
    double sum = 0;
    for (int i = threadIdx.x; i < width; i += 32) {
        const double value = load(rows, first + i, kind);
        sum += value * value;
    }
    for (int step = 16; step; step /= 2)
        sum += __shfl_xor_sync(ALL, sum, step);
    const double length = sqrt(sum);
    const bool sound = length > 0 && length - length == 0;
    for (int i = threadIdx.x; i < width; i += 32)
        unit[first + i] = sound ? (short)rint(load(rows, first + i, kind) * ((double)DIRECTION_ONE / length)) : 0;
}

// Multiplies the directions `unit` [tiles, tokens, width] of each tile with each other, to `result` [tiles, tokens,
// tokens]. A word holds two numbers of 16 bits, so `words` is width / 2. One thread for each cosine; blockIdx.z is the
// tile.
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

// The finalizer of MurmurHash3 (Austin Appleby, public domain).
__device__ unsigned mix(unsigned bits)
{
    bits = (bits ^ bits >> 16) * 0x85EBCA6Bu;
    bits = (bits ^ bits >> 13) * 0xC2B2AE35u;
    return bits ^ bits >> 16;
}

// Writes the `keep` tokens that `method` takes of each tile, ascending, as rows among the tokens of all tiles: `places`
// [tiles, keep]. METHOD_RANDOM reads `rows` alone, the others `cosines` alone. One warp for each tile.
extern "C" __global__ void choose(const void *rows, const int *cosines, int *places, int tokens, int width, int kind,
                                  int keep, int method)
{
    // Each thread reads and writes only its own tokens, so shared memory needs no barrier.
    __shared__ int importance[MOST_TOKENS], nearest[MOST_TOKENS];
    __shared__ bool taken[MOST_TOKENS];
    const int lane = threadIdx.x;
    const size_t first = (size_t)blockIdx.x * tokens;
    const int *tile = cosines + first * tokens;
    for (int i = lane; i < tokens; i += 32) {
        taken[i] = false;
        nearest[i] = 0;
        if (method == METHOD_RANDOM) {
            Bits one;
            one.value = load(rows, (first + i) * width, kind);
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
            if (step && method != METHOD_RANDOM) {
                const int distance = COSINE_ONE - tile[(size_t)last * tokens + i];
                nearest[i] = step == 1 || distance < nearest[i] ? distance : nearest[i];
                if (method == METHOD_DIVERSITY)
                    importance[i] = 0;
            }
            // The value, and in the bits below it the place, so that the first of equal values is the largest.
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

// Copies row places[i] of `rows` to row i of `result`, where i is blockIdx.x. `row` counts words of 16 bytes.
extern "C" __global__ void gather(const uint4 *rows, const int *places, uint4 *result, int row)
{
    const uint4 *from = rows + (size_t)places[blockIdx.x] * row;
    uint4 *to = result + (size_t)blockIdx.x * row;
    for (int i = threadIdx.x; i < row; i += blockDim.x)
        to[i] = from[i];
}
