// The KV cache of the text decoder: two kernels with which a decode step runs without the host.
//
// append_rows copies the new keys and values into the cache; advance makes the token that was found the next input.

// Copies the first `count` rows of each tensor in `staged` [tensors, staged_rows, row] to the rows of `cache`
// [tensors, cache_rows, row] that begin at `past_length`. `row` counts words of 16 bytes. blockIdx.x is the tensor, and
// all blocks of one tensor share its rows.
extern "C" __global__ void append_rows(const uint4 *staged, uint4 *cache, const long long *past_length,
                                       const long long *count, int row, int staged_rows, int cache_rows)
{
    const uint4 *from = staged + (size_t)blockIdx.x * staged_rows * row;
    uint4 *to = cache + ((size_t)blockIdx.x * cache_rows + *past_length) * row;
    const long long words = *count * row;
    for (long long i = blockIdx.y * blockDim.x + threadIdx.x; i < words; i += gridDim.y * blockDim.x)
        to[i] = from[i];
}

// Makes `next_token` the next step's input, counts one token further, and leaves the token for the host in
// ring[step % ring_size]. Runs as one thread.
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
