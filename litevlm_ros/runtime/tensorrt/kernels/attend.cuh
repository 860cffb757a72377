// Attention of the new tokens to one part of a layer's cache, by one block. Queries are rows, as many for each token as
// share the keys. Warps take 16 keys at a time, and their sums are then merged.

// The cache as a step finds it, and the part of it from row begin to before row end.
struct Span {
    int past, fresh, begin, end;
};

// What a warp knows of its 16 rows, of which a lane has row group and row group + 8.
struct Mixed {
    float most[ROW_HALVES], sum[ROW_HALVES], out[HEAD_DIM / 8][4];
};

// Two numbers that a position rotates together: those of a head that are HALF apart.
__device__ float2 read_both(const float *head, int at) { return {read_shared(head + at), read_shared(head + HALF + at)}; }

__device__ float2 rotated(float2 both, int token, int at)
{
    const float cosine = angles()[token * HEAD_DIM + at], sine = angles()[token * HEAD_DIM + HALF + at];
    return {both.x * cosine - both.y * sine, both.y * cosine + both.x * sine};
}

// Rotates 16 of the new queries that share `group`'s keys, from row 16 * `tile` on, to `queries`, and appends the new keys
// and values that are in the span to the cache. `rows` begins with the first token's queries, keys and values.
__device__ void rotate_and_append(const float *rows, number *queries, number *keys, number *values, const Span &span,
                                  int group, int tile, int *bad)
{
    for (int i = thread(); i < 16 * HALF; i += THREADS) {
        const int row = i / HALF, at = i % HALF, token = (16 * tile + row) / SHARING;
        const int head = group * SHARING + (16 * tile + row) % SHARING;
        float2 both = {0, 0};
        if (token < span.fresh)
            both = rotated(read_both(rows + token * ROW_WORDS + head * HEAD_DIM, at), token, at);
        queries[row * QUERY_PITCH + at] = to_number(both.x);
        queries[row * QUERY_PITCH + HALF + at] = to_number(both.y);
    }
    for (int i = thread(); i < 2 * TOKENS * HALF; i += THREADS) {
        const bool is_value = i >= TOKENS * HALF;
        const int token = i / HALF % TOKENS, at = i % HALF, row = span.past + token;
        if (token >= span.fresh || row < span.begin || row >= span.end)
            continue;
        float2 both = read_both(rows + token * ROW_WORDS + (HEADS + (is_value ? KV_HEADS : 0) + group) * HEAD_DIM, at);
        if (!is_value)
            both = rotated(both, token, at);
        const number first = to_number(both.x), second = to_number(both.y);
        number *to = (is_value ? values : keys) + ((size_t)row * KV_HEADS + group) * HEAD_DIM + at;
        to[0] = first, to[HALF] = second;
        if (!(is_finite(from_number(first)) & is_finite(from_number(second))))
            *bad = 1;
    }
    sync();
}

__device__ float largest_of_four(float value)
{
    value = fmaxf(value, __shfl_xor_sync(ALL, value, 1));
    return fmaxf(value, __shfl_xor_sync(ALL, value, 2));
}

__device__ float sum_of_four(float value)
{
    value += __shfl_xor_sync(ALL, value, 1);
    return value + __shfl_xor_sync(ALL, value, 2);
}

#define NOTHING -1e30f  // less than any score, and finite, so that differences are numbers

// Mixes the values of every WARPS-th 16 keys of the span, from those of `part` on.
__device__ void mix(Mixed &mixed, const number *queries, const number *keys, const number *values, const Span &span,
                    int group, int tile, int part)
{
    const int lane = thread() % 32, row = lane / 4, place = lane % 4;
    unsigned asked[HEAD_DIM / 32][2][4];
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 32; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const uint4 word = *(const uint4 *)(queries + (8 * half + row) * QUERY_PITCH + 32 * i + 8 * place);
            asked[i][half][0] = word.x, asked[i][half][1] = word.y, asked[i][half][2] = word.z, asked[i][half][3] = word.w;
        }
    int last[ROW_HALVES];  // the last key that a row sees
#pragma unroll
    for (int half = 0; half < ROW_HALVES; ++half) {
        mixed.most[half] = NOTHING, mixed.sum[half] = 0;
        const int token = (16 * tile + 8 * half + row) / SHARING, sees = span.past + token;
        last[half] = sees < span.end ? sees : span.end - 1;
    }
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 8; ++i)
        mixed.out[i][0] = mixed.out[i][1] = mixed.out[i][2] = mixed.out[i][3] = 0;
    const float scale = rsqrtf((float)HEAD_DIM) * 1.44269504f;  // powers of two are what the hardware has
    for (int key = span.begin + 16 * part; key < span.end; key += 16 * WARPS) {
        uint4 key_words[2][HEAD_DIM / 32], value_words[2][HEAD_DIM / 32];
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            const int at = key + 8 * n + row;
            const size_t from = ((size_t)at * KV_HEADS + group) * HEAD_DIM + 8 * place;
#pragma unroll
            for (int i = 0; i < HEAD_DIM / 32; ++i) {
                const uint4 none = {0, 0, 0, 0};
                key_words[n][i] = at < span.end ? __ldcg((const uint4 *)(keys + from + 32 * i)) : none;
                value_words[n][i] = at < span.end ? __ldcg((const uint4 *)(values + from + 32 * i)) : none;
            }
        }
        float scores[2][4] = {};
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int i = 0; i < HEAD_DIM / 32; ++i) {
                const uint4 &word = key_words[n][i];
                const unsigned front[4] = {asked[i][0][0], asked[i][1][0], asked[i][0][1], asked[i][1][1]};
                const unsigned back[4] = {asked[i][0][2], asked[i][1][2], asked[i][0][3], asked[i][1][3]};
                multiply(scores[n], front, word.x, word.y);
                multiply(scores[n], back, word.z, word.w);
            }
        unsigned weights[4] = {0, 0, 0, 0};
#pragma unroll
        for (int half = 0; half < ROW_HALVES; ++half) {
            float most = mixed.most[half];
#pragma unroll
            for (int n = 0; n < 2; ++n)
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    float &score = scores[n][2 * half + i];
                    score = key + 8 * n + 2 * place + i <= last[half] ? score * scale : NOTHING;
                    most = fmaxf(most, score);
                }
            most = largest_of_four(most);
            const float kept = exp2f(mixed.most[half] - most);
            mixed.most[half] = most;
            mixed.sum[half] *= kept;
#pragma unroll
            for (int i = 0; i < HEAD_DIM / 8; ++i)
                mixed.out[i][2 * half] *= kept, mixed.out[i][2 * half + 1] *= kept;
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                // A row that sees none of the keys so far has the weights of none.
                const float one = scores[n][2 * half] > NOTHING ? exp2f(scores[n][2 * half] - most) : 0;
                const float two = scores[n][2 * half + 1] > NOTHING ? exp2f(scores[n][2 * half + 1] - most) : 0;
                mixed.sum[half] += one + two;
                weights[2 * n + half] = pack(one, two);
            }
        }
#pragma unroll
        for (int i = 0; i < HEAD_DIM / 32; ++i) {
            const unsigned low[4] = {value_words[0][i].x, value_words[0][i].y, value_words[0][i].z, value_words[0][i].w};
            const unsigned high[4] = {value_words[1][i].x, value_words[1][i].y, value_words[1][i].z, value_words[1][i].w};
#pragma unroll
            for (int j = 0; j < 4; ++j)
                multiply(mixed.out[4 * i + j], weights, transpose(low[j]), transpose(high[j]));
        }
    }
#pragma unroll
    for (int half = 0; half < ROW_HALVES; ++half)
        mixed.sum[half] = sum_of_four(mixed.sum[half]);
}

// Leaves what a warp knows in its place of the room: 16 rows of HEAD_DIM sums, the largest score and the sum of weights.
__device__ void leave(const Mixed &mixed)
{
    const unsigned lane = thread() % 32, place = lane % 4;
    float *at = room() + thread() / 32 * MIXED_OF_WARP + lane / 4 * MIXED_PITCH;
#pragma unroll
    for (int half = 0; half < ROW_HALVES; ++half, at += 8 * MIXED_PITCH) {
#pragma unroll
        for (int i = 0; i < HEAD_DIM / 8; ++i)
            *(float2 *)(at + i / 4 * 32 + 8 * place + 2 * (i % 4)) = {mixed.out[i][2 * half], mixed.out[i][2 * half + 1]};
        if (place == 0)
            *(float2 *)(at + HEAD_DIM) = {mixed.most[half], mixed.sum[half]};
    }
}

// Merges what `warps` warps have left, and writes, for each row and this split, HEAD_DIM sums, the largest score and the sum
// of weights.
__device__ void merge(float *rows, int warps, int fresh, int group, int tile, int split)
{
    for (int i = thread(); i < 8 * ROW_HALVES * HEAD_DIM / 2; i += THREADS) {
        const int row = i / (HEAD_DIM / 2), at = i % (HEAD_DIM / 2) * 2, query = 16 * tile + row, token = query / SHARING;
        if (token >= fresh)
            continue;
        const float *left = room() + row * MIXED_PITCH;
        float most = NOTHING, sum = 0;
        float2 mean = {0, 0};
        for (int warp = 0; warp < warps; ++warp)
            most = fmaxf(most, left[warp * MIXED_OF_WARP + HEAD_DIM]);
        for (int warp = 0; warp < warps; ++warp) {
            const float *of_warp = left + warp * MIXED_OF_WARP;
            const float by = exp2f(of_warp[HEAD_DIM] - most);
            const float2 two = *(const float2 *)(of_warp + at);
            sum += by * of_warp[HEAD_DIM + 1];
            mean.x += by * two.x, mean.y += by * two.y;
        }
        const int part = (group * SHARING + query % SHARING) * MOST_SPLITS + split;
        float *to = rows + token * ROW_WORDS;
        *(float2 *)(to + PARTS_AT + part * HEAD_DIM + at) = mean;
        if (at == 0)
            *(float2 *)(to + WEIGHTS_AT + 2 * part) = {most, sum};
    }
}

// Attends with 16 rows of queries, from row 16 * `tile` on. `rows` is what blocks exchange.
__device__ void attend(float *rows, number *keys, number *values, const Span &span, int group, int tile, int split, int *bad)
{
    number *queries = (number *)(room() + MIX_ROOM);
    rotate_and_append(rows + QKV_AT, queries, keys, values, span, group, tile, bad);
    const int count = span.end - span.begin, warps = count < 16 * WARPS ? (count + 15) / 16 : WARPS;  // that have any keys
    if (thread() / 32 < warps) {
        Mixed mixed;
        mix(mixed, queries, keys, values, span, group, tile, thread() / 32);
        leave(mixed);
    }
    sync();
    merge(rows, warps, span.fresh, group, tile, split);
}
