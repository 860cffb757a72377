// What the vision encoder does with whole rows between the products of a block: positions, the sum over the layers and its
// norm, layer scales, and the pixel shuffle before the projector. Rows are aligned to 16 bytes. All arithmetic is fp32.
//
// vision_rows.py defines these macros of a model's shapes:
//   SUM_WORDS      width of the sum, in words of 4 floats
//   GRID, FOLD     edge of a tile in patches, and of the squares of patches that become one visual token
//   NORM_THREADS   threads that normalise a row of the sum, whole warps
//   FOLD_THREADS   threads that normalise a row of the projector, whole warps
//   ROWS           rows whose same word a thread scales

#define TILE_ROWS (1 + GRID * GRID)

__device__ float4 read_four(const float *from) { return *(const float4 *)from; }

__device__ float4 read_four(const number *from)
{
    const Group<uint2, number> four = read_group<uint2>(from);
    return {from_number(four.each[0]), from_number(four.each[1]), from_number(four.each[2]), from_number(four.each[3])};
}

__device__ void write_four(number *to, float4 one)
{
    Group<uint2, number> four;
    four.each[0] = to_number(one.x), four.each[1] = to_number(one.y);
    four.each[2] = to_number(one.z), four.each[3] = to_number(one.w);
    write_group(to, four);
}

__device__ float4 added(float4 one, float4 other)
{
    return {one.x + other.x, one.y + other.y, one.z + other.z, one.w + other.w};
}

__device__ float4 multiplied(float4 one, float4 other)
{
    return {one.x * other.x, one.y * other.y, one.z * other.z, one.w * other.w};
}

__device__ float sum_of(float4 one) { return (one.x + one.y) + (one.z + one.w); }

// Returns the sum of `part` over all of a block's THREADS, in each of them.
template <int THREADS> __device__ float sum_of_block(float part)
{
    part = sum_of_warp(part);
    if (THREADS == 32)
        return part;
    __shared__ float of_warps[THREADS / 32];
    __syncthreads();  // all have read what was there
    if (threadIdx.x % 32 == 0)
        of_warps[threadIdx.x / 32] = part;
    __syncthreads();
    float sum = 0;
    for (int warp = 0; warp < THREADS / 32; ++warp)
        sum += of_warps[warp];
    return sum;
}

// Writes the LayerNorm of a row, whose word `at` is word(at), and the row itself to `kept` unless that is null.
template <int WORDS, int THREADS, class Word>
__device__ void normalise(Word word, const float4 *weight, const float4 *bias, float4 *kept, number *normalised, float eps)
{
    constexpr int STEPS = (WORDS + THREADS - 1) / THREADS;
    constexpr bool IS_FULL = WORDS % THREADS == 0;  // so that no step is left out
    float4 row[STEPS], by[STEPS], more[STEPS];
    float total = 0, squares = 0;
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {  // without a branch or a write, so that no read waits for another
        const int place = threadIdx.x + i * THREADS, at = IS_FULL || place < WORDS ? place : WORDS - 1;
        row[i] = word(at), by[i] = weight[at], more[i] = bias[at];
    }
#pragma unroll
    for (int i = 0; i < STEPS; ++i)
        if (IS_FULL || threadIdx.x + i * THREADS < WORDS)
            total += sum_of(row[i]);
    const float mean = sum_of_block<THREADS>(total) / (4 * WORDS);
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
        const int at = threadIdx.x + i * THREADS;
        if (!IS_FULL && at >= WORDS)
            break;
        if (kept)
            kept[at] = row[i];
        row[i] = added(row[i], {-mean, -mean, -mean, -mean});
        squares += sum_of(multiplied(row[i], row[i]));
    }
    const float scale = 1 / sqrtf(sum_of_block<THREADS>(squares) / (4 * WORDS) + eps);
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
        const int at = threadIdx.x + i * THREADS;
        if (!IS_FULL && at >= WORDS)
            break;
        const float4 one = multiplied(row[i], {scale, scale, scale, scale});
        write_four(normalised + 4 * at, added(multiplied(one, by[i]), more[i]));
    }
}

// Adds `positions` [TILE_ROWS] to the rows of each tile. One thread for each word of `sum` [tiles, TILE_ROWS].
extern "C" __global__ void add_positions(float4 *sum, const float4 *positions, int words)
{
    const int word = blockIdx.x * blockDim.x + threadIdx.x;
    if (word < words)
        sum[word] = added(sum[word], positions[word % (TILE_ROWS * SUM_WORDS)]);
}

// Writes `residual` = `sum` + `change`, and its LayerNorm. One block of NORM_THREADS a row.
extern "C" __global__ void add_and_normalise(const float4 *sum, const number *change, const float4 *weight,
                                             const float4 *bias, float4 *residual, number *normalised, float eps)
{
    const size_t first = (size_t)blockIdx.x * SUM_WORDS;
    normalise<SUM_WORDS, NORM_THREADS>(
        [=](int at) { return added(sum[first + at], read_four(change + 4 * (first + at))); }, weight, bias, residual + first,
        normalised + 4 * first, eps);
}

// Writes `sum` = `residual` + (`mixed` + `mixed_bias`) * `scale`, and its LayerNorm. One block of NORM_THREADS a row.
extern "C" __global__ void add_scaled_and_normalise(const float4 *residual, const float4 *mixed, const wide *mixed_bias,
                                                    const wide *scale, const float4 *weight, const float4 *bias,
                                                    float4 *sum, number *normalised, float eps)
{
    const size_t first = (size_t)blockIdx.x * SUM_WORDS;
    normalise<SUM_WORDS, NORM_THREADS>(
        [=](int at) {
            const float4 change = added(mixed[first + at], read_four(mixed_bias + 4 * at));
            return added(residual[first + at], multiplied(change, read_four(scale + 4 * at)));
        },
        weight, bias, sum + first, normalised + 4 * first, eps);
}

// Writes `normalised` [tokens, FOLD * FOLD * 4 * SUM_WORDS], the LayerNorm of `sum` + `change` [tiles, TILE_ROWS] of all
// patches in a square, row by row; CLS tokens are left out. One block of FOLD_THREADS a token.
extern "C" __global__ void fold_and_normalise(const float4 *sum, const number *change, const float4 *weight,
                                              const float4 *bias, number *normalised, float eps)
{
    constexpr int SIDE = GRID / FOLD, WORDS = FOLD * FOLD * SUM_WORDS;
    const int tile = blockIdx.x / (SIDE * SIDE), square = blockIdx.x % (SIDE * SIDE);
    const int corner = square / SIDE * FOLD * GRID + square % SIDE * FOLD;
    normalise<WORDS, FOLD_THREADS>(
        [=](int at) {
            const int patch = at / SUM_WORDS, row = 1 + corner + patch / FOLD * GRID + patch % FOLD;
            const size_t from = ((size_t)tile * TILE_ROWS + row) * SUM_WORDS + at % SUM_WORDS;
            return added(sum[from], read_four(change + 4 * from));
        },
        weight, bias, nullptr, normalised + (size_t)blockIdx.x * 4 * WORDS, eps);
}

// Writes the `rows` of `change` = (`product` + `bias`) * `scale`. One thread for the same word of ROWS rows, so that it reads
// bias and scale once.
extern "C" __global__ void scale_change(const float4 *product, const wide *bias, const wide *scale, number *change, int rows)
{
    const int word = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * ROWS;
    if (word >= SUM_WORDS)
        return;
    const size_t first = (size_t)row * SUM_WORDS + word;
    const float4 more = read_four(bias + 4 * word), by = read_four(scale + 4 * word);
    float4 read[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; ++i)
        read[i] = product[first + (row + i < rows ? i * SUM_WORDS : 0)];
#pragma unroll
    for (int i = 0; i < ROWS; ++i)
        if (row + i < rows)
            write_four(change + 4 * (first + i * SUM_WORDS), multiplied(added(read[i], more), by));
}
