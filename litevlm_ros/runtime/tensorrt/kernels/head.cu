// Logits by a head in int8, which is read as it is stored: for prompts, and for steps where those are not one kernel.
//
// Each row of the head has an fp16 scale. A warp reads the rows of some words once for some rows of numbers, because memory
// is what it waits for. head.py defines these macros:
//   ROW_WORDS     words of 16 bytes in a row of the head
//   WORDS, ROWS   rows of the head, and of numbers, that a warp multiplies

// Writes the `count` rows of `logits` [count, words] for `rows` of numbers [count, 16 * ROW_WORDS]. `words`, the rows of
// `head`, are a multiple of WORDS. One warp for each WORDS of them, and a line of the grid for each ROWS rows.
extern "C" __global__ void multiply_by_head(const number *rows, const uint4 *head, const unsigned short *scales,
                                            number *logits, int count, int words)
{
    const int lane = threadIdx.x % 32, row = blockIdx.y * ROWS;
    const int word = (blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32) * WORDS;
    if (word >= words)
        return;
    float sums[ROWS][WORDS] = {};
    for (int at = lane; at < ROW_WORDS; at += 32) {
        float weights[WORDS][16];
#pragma unroll
        for (int i = 0; i < WORDS; ++i) {
            const uint4 read = head[(size_t)(word + i) * ROW_WORDS + at];
            const unsigned four[4] = {read.x, read.y, read.z, read.w};
#pragma unroll
            for (int j = 0; j < 16; ++j)
                weights[i][j] = (signed char)(four[j / 4] >> 8 * (j % 4));
        }
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            if (row + r >= count)
                break;
            const number *from = rows + ((size_t)(row + r) * ROW_WORDS + at) * 16;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const Group<uint4, number> eight = read_group<uint4>(from + 8 * half);
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    const float number = from_number(eight.each[j]);
#pragma unroll
                    for (int i = 0; i < WORDS; ++i)
                        sums[r][i] += number * weights[i][8 * half + j];
                }
            }
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
#pragma unroll
        for (int i = 0; i < WORDS; ++i) {
            const float sum = sum_of_warp(sums[r][i]);
            if (lane == 0 && row + r < count)
                logits[(size_t)(row + r) * words + word + i] = to_number(sum * from_half(scales[word + i]));
        }
}
