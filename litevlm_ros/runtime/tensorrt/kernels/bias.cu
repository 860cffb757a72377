// Biases of products, and what follows them in the same kernel.
//
// Rows hold words of 8 numbers, 16 bytes, to which they are aligned. A thread does the same word of some rows, so that it
// reads the bias once and has several reads on their way. bias.py defines their number, ROWS. All arithmetic is fp32.

// Replaces the `rows` of `numbers` by of_number(number + bias).
template <class OfNumber> __device__ void replace(number *numbers, const wide *bias, int rows, int words, OfNumber of_number)
{
    const int word = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * ROWS;
    if (word >= words)
        return;
    number *at = numbers + 8 * ((size_t)row * words + word);
    const Group<uint4, wide> more = read_group<uint4>(bias + 8 * word);
    Group<uint4, number> eight[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; ++i)
        eight[i] = read_group<uint4>(at + 8 * (size_t)(row + i < rows ? i * words : 0));
#pragma unroll
    for (int i = 0; i < ROWS; ++i)
        if (row + i < rows) {
#pragma unroll
            for (int j = 0; j < 8; ++j)
                eight[i].each[j] = to_number(of_number(from_number(eight[i].each[j]) + from_wide(more.each[j])));
            write_group(at + 8 * (size_t)(i * words), eight[i]);
        }
}

// Adds `bias` [8 * words] to each of the `rows` of `numbers`.
extern "C" __global__ void add_bias(number *numbers, const wide *bias, int rows, int words)
{
    replace(numbers, bias, rows, words, [](float one) { return one; });
}

// Replaces `numbers` by GELU(numbers + `bias`) as block_graph.py's `gelu` has it: (1 + tanh(u)) / 2 is 1 / (1 + exp(-2 u)).
extern "C" __global__ void gelu(number *numbers, const wide *bias, int rows, int words)
{
    replace(numbers, bias, rows, words, [](float one) {
        return gated(one, 2 * one * (0.80015f + 0.03470415f * one * one));
    });
}
