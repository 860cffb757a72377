// What the text decoder does between its blocks: tokens to rows, rotary positions and the KV cache, the wanted rows, and
// the choice of the next token, so that a decode step runs without the host.
//
// Numbers of new tokens and of cache rows are read from device memory, so one CUDA graph serves all of them: `lengths`
// holds the number of new tokens and the number of cache rows that are valid once those have been appended.
//
// text.py defines these macros of a model's shapes:
//   HEADS, KV_HEADS    heads of queries, and of keys and of values
//   HALF               half of the numbers of a head
//   ROTARY_WORD        type that holds as many numbers as a thread rotates of a half; HALF is a multiple of them
//   CHOOSE_THREADS     threads that look for the largest logit, a power of two

// Writes the row of each token: from `table` [vocabulary, width], or for ids from `vocabulary` on from `visual` [rows,
// width], which is bf16 if `visual_is_bf16` and fp16 otherwise. The table holds numbers, or int8 with fp16 `scales`
// [vocabulary] unless those are null. `residual` is fp32 [tokens, width]. One block a token.
extern "C" __global__ void embed(const long long *ids, const void *table, const unsigned short *scales,
                                 const unsigned short *visual, float *residual, int width, int vocabulary,
                                 int visual_is_bf16)
{
    const long long id = ids[blockIdx.x];
    float *to = residual + (size_t)blockIdx.x * width;
    if (id >= vocabulary) {
        const unsigned short *from = visual + (size_t)(id - vocabulary) * width;
        for (int i = threadIdx.x; i < width; i += blockDim.x)
            to[i] = visual_is_bf16 ? from_bf16(from[i]) : from_half(from[i]);
    } else if (scales) {
        const signed char *from = (const signed char *)table + (size_t)id * width;
        for (int i = threadIdx.x; i < width; i += blockDim.x)
            to[i] = from_number(to_number(from[i] * from_half(scales[id])));
    } else {
        const number *from = (const number *)table + (size_t)id * width;
        for (int i = threadIdx.x; i < width; i += blockDim.x)
            to[i] = from_number(from[i]);
    }
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

// Rotates the queries of `qkv` [tokens, HEADS + 2 * KV_HEADS, 2 * HALF] in place, and writes rotated keys, and values,
// to the rows of `keys` and `values` [rows, KV_HEADS, 2 * HALF] of the new tokens. Tokens that only fill up the shape
// reach no cache. A key or value that is not finite sets *bad. One thread for each ROTARY_WORD of the first halves.
extern "C" __global__ void rotate_and_append(number *qkv, number *keys, number *values, const float *table,
                                             const int *lengths, int *bad, int tokens)
{
    const int width = sizeof(ROTARY_WORD) / sizeof(number), words = HALF / width, all = HEADS + 2 * KV_HEADS;
    const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    const int token = thread / (words * all), head = thread / words % all, at = thread % words * width;
    if (token >= tokens)
        return;
    number *to = qkv + ((size_t)token * all + head) * 2 * HALF + at;
    const float *angles = table + (size_t)token * 2 * HALF + at;
    Group<ROTARY_WORD, number> first = read_group<ROTARY_WORD>(to), second = read_group<ROTARY_WORD>(to + HALF);
    const Group<ROTARY_WORD, float> cosines = read_group<ROTARY_WORD>(angles);
    const Group<ROTARY_WORD, float> sines = read_group<ROTARY_WORD>(angles + HALF);
    const int fresh = lengths[0], valid = lengths[1];
    const bool is_query = head < HEADS, is_value = head >= HEADS + KV_HEADS;
    if (!is_value)
        for (int i = 0; i < width; ++i) {
            const float before = from_number(first.each[i]), behind = from_number(second.each[i]);
            first.each[i] = to_number(before * cosines.each[i] - behind * sines.each[i]);
            second.each[i] = to_number(behind * cosines.each[i] + before * sines.each[i]);
        }
    if (!is_query) {
        if (token >= fresh)
            return;
        const size_t row = valid - fresh + token;
        to = is_value ? values + (row * KV_HEADS + head - HEADS - KV_HEADS) * 2 * HALF + at
                      : keys + (row * KV_HEADS + head - HEADS) * 2 * HALF + at;
        bool finite = true;
        for (int i = 0; i < width; ++i)
            finite &= is_finite(from_number(first.each[i])) & is_finite(from_number(second.each[i]));
        if (!finite)
            *bad = 1;
    }
    write_group(to, first);
    write_group(to + HALF, second);
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
    const number *row = logits + (size_t)blockIdx.x * stride;
    float most = -3.4e38f;
    int at = 0;
    for (int word = threadIdx.x; word < stride / 8; word += blockDim.x) {
        const Group<uint4, number> eight = read_group<uint4>(row + 8 * word);
        for (int i = 0; i < 8; ++i) {
            const int token = 8 * word + i;
            const float value = from_number(eight.each[i]);
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
