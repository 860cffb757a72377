// What the text decoder does between its blocks: tokens to rows, rotary positions and the KV cache, the wanted rows, and
// the choice of the next token, so that a decode step runs without the host.
//
// Numbers of new tokens and of cache rows are read from device memory, so one CUDA graph serves all of them: `lengths`
// holds the number of new tokens and the number of cache rows that are valid once those have been appended.

// Writes the row of each token: from `table` [vocabulary, width], or for ids from `vocabulary` on from `visual` [rows,
// width], which is bf16 if `visual_is_bf16` and fp16 otherwise. `residual` is fp32 [tokens, width]. One block a token.
extern "C" __global__ void embed(const long long *ids, const number *table, const unsigned short *visual,
                                 float *residual, int width, int vocabulary, int visual_is_bf16)
{
    const long long id = ids[blockIdx.x];
    float *to = residual + (size_t)blockIdx.x * width;
    const bool word = id < vocabulary;
    const unsigned short *from = word ? table + (size_t)id * width : visual + (size_t)(id - vocabulary) * width;
    for (int i = threadIdx.x; i < width; i += blockDim.x)
        to[i] = word ? from_number(from[i]) : visual_is_bf16 ? from_bf16(from[i]) : from_half(from[i]);
}

// Writes the cosines and then the sines of each token's angles: `table` fp32 [tokens, 2 * half]. One block a token.
extern "C" __global__ void rotations(const long long *positions, const float *frequencies, float *table, int half)
{
    float *row = table + (size_t)blockIdx.x * 2 * half;
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        const float angle = (float)positions[blockIdx.x] * frequencies[i];
        row[i] = cosf(angle);
        row[half + i] = sinf(angle);
    }
}

// Rotates the queries of `qkv` [tokens, heads + 2 * kv_heads, 2 * half] in place, and writes rotated keys, and values, to
// the rows of `keys` and `values` [rows, kv_heads, 2 * half] of the new tokens. Tokens that only fill up the shape reach
// no cache. A key or value that is not finite sets *bad. One block a token.
extern "C" __global__ void rotate_and_append(number *qkv, number *keys, number *values, const float *table,
                                             const int *lengths, int *bad, int heads, int kv_heads, int half)
{
    const int token = blockIdx.x, all = heads + 2 * kv_heads;
    const bool real = token < lengths[0];
    const size_t row = real ? lengths[1] - lengths[0] + token : 0;
    const float *cosines = table + (size_t)token * 2 * half, *sines = cosines + half;
    for (int i = threadIdx.x; i < all * half; i += blockDim.x) {
        const int head = i / half, at = i % half;
        number *pair = qkv + ((size_t)token * all + head) * 2 * half + at;
        float first = from_number(pair[0]), second = from_number(pair[half]);
        if (head < heads + kv_heads) {
            const float before = first;
            first = before * cosines[at] - second * sines[at];
            second = second * cosines[at] + before * sines[at];
        }
        if (head < heads) {
            pair[0] = to_number(first);
            pair[half] = to_number(second);
        } else if (real) {
            const bool is_key = head < heads + kv_heads;
            const int own = head - heads - (is_key ? 0 : kv_heads);
            number *to = (is_key ? keys : values) + (row * kv_heads + own) * 2 * half + at;
            to[0] = to_number(first);
            to[half] = to_number(second);
            if (!is_finite(from_number(to[0])) || !is_finite(from_number(to[half])))
                *bad = 1;
        }
    }
}

// Copies the rows `wanted` of `attention` [tokens, attention_width] and of `residual` [tokens, width]. One block a row.
extern "C" __global__ void gather_rows(const long long *wanted, const number *attention, const float *residual,
                                       number *attention_rows, float *residual_rows, int attention_width, int width)
{
    const size_t from = wanted[blockIdx.x], to = blockIdx.x;
    for (int i = threadIdx.x; i < attention_width; i += blockDim.x)
        attention_rows[to * attention_width + i] = attention[from * attention_width + i];
    for (int i = threadIdx.x; i < width; i += blockDim.x)
        residual_rows[to * width + i] = residual[from * width + i];
}

// Finds the largest of the first `vocabulary` numbers of each row of `logits` [rows, stride], the first of equal ones.
// `stride` is a multiple of 8. A number that is not finite sets *bad. One block of CHOOSE_THREADS a row.
extern "C" __global__ void choose(const number *logits, long long *next_tokens, int *bad, int vocabulary, int stride)
{
    __shared__ float best[CHOOSE_THREADS];
    __shared__ int place[CHOOSE_THREADS];
    const uint4 *words = (const uint4 *)(logits + (size_t)blockIdx.x * stride);
    float most = -3.4e38f;
    int at = 0;
    for (int word = threadIdx.x; word < stride / 8; word += blockDim.x) {
        const uint4 eight = words[word];
        const unsigned pairs[4] = {eight.x, eight.y, eight.z, eight.w};
        for (int i = 0; i < 8; ++i) {
            const int token = 8 * word + i;
            const float value = from_number((unsigned short)(pairs[i / 2] >> 16 * (i % 2)));
            if (token < vocabulary && !is_finite(value))
                *bad = 1;
            if (token < vocabulary && value > most) {
                most = value;
                at = token;
            }
        }
    }
    best[threadIdx.x] = most;
    place[threadIdx.x] = at;
    __syncthreads();
    for (unsigned step = CHOOSE_THREADS / 2; step; step /= 2) {
        if (threadIdx.x < step) {
            const float other = best[threadIdx.x + step];
            const int there = place[threadIdx.x + step];
            if (other > best[threadIdx.x] || (other == best[threadIdx.x] && there < place[threadIdx.x])) {
                best[threadIdx.x] = other;
                place[threadIdx.x] = there;
            }
        }
        __syncthreads();
    }
    if (threadIdx.x == 0)
        next_tokens[blockIdx.x] = place[0];
}

// Makes the token that was found the next step's input, counts one token further, and leaves the token for the host in
// ring[step % ring_size]: -1 if any of the `flags` in `bad` is set. Runs as one thread.
extern "C" __global__ void advance(const long long *next_token, const int *bad, long long *id, long long *position,
                                   int *lengths, long long *step, volatile long long *ring, int ring_size, int flags)
{
    const long long token = *next_token;
    int any = 0;
    for (int i = 0; i < flags; ++i)
        any |= bad[i];
    ring[*step % ring_size] = any ? -1 : token;
    *id = token;
    *position += 1;
    lengths[1] += 1;
    *step += 1;
}
