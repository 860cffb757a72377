// New queries, keys and values of a head: the former two are normalised where the model does so (Qwen3), and rotated, and
// keys and values go to the cache.

// Numbers that a position rotates together are HALF apart. A warp takes whole heads, and a lane PAIRS pairs of each.
enum { PAIRS = (HALF + 31) / 32 };

__device__ int pair_of(int index) { return thread() % 32 + 32 * index; }

__device__ float2 read_both(const float *head, int at) { return {head[at], head[at + HALF]}; }

#ifdef QK_NORM
// The weights by which the norms of a head's queries and keys multiply, as a lane needs them.
struct HeadNorms {
    float2 of_queries[PAIRS], of_keys[PAIRS];
    const float eps;
    __device__ HeadNorms(const Layer &layer, float eps) : eps(eps)
    {
#pragma unroll
        for (int i = 0; i < PAIRS; ++i)
            if (pair_of(i) < HALF) {
                of_queries[i] = read_both(layer.q_norm, pair_of(i));
                of_keys[i] = read_both(layer.k_norm, pair_of(i));
            }
    }
    // Normalises a head: head / sqrt(mean(head^2) + eps) * weight. Numbers beyond HALF pairs are zero.
    __device__ void apply(float2 (&head)[PAIRS], bool is_query) const
    {
        float squares = 0;
#pragma unroll
        for (int i = 0; i < PAIRS; ++i)
            squares += head[i].x * head[i].x + head[i].y * head[i].y;
        const float scale = rsqrtf(sum_of_warp(squares) * (1.f / HEAD_DIM) + eps);
#pragma unroll
        for (int i = 0; i < PAIRS; ++i)
            if (pair_of(i) < HALF) {
                const float2 by = is_query ? of_queries[i] : of_keys[i];
                head[i].x *= scale * by.x, head[i].y *= scale * by.y;
            }
    }
};
#else
struct HeadNorms {
    __device__ HeadNorms(const Layer &, float) {}
    __device__ void apply(float2 (&)[PAIRS], bool) const {}
};
#endif

__device__ float2 rotated(float2 both, int token, int at)
{
    const float cosine = angles()[token * HEAD_DIM + at], sine = angles()[token * HEAD_DIM + HALF + at];
    return {both.x * cosine - both.y * sine, both.y * cosine + both.x * sine};
}

// Normalises and rotates the new queries and keys of a head, and leaves them and the new values as numbers in shared
// memory. One block appends those keys and values that heads share to the cache.
__device__ void rotate_and_append(const Layer &layer, const Chunks &chunks, int head, const HeadNorms &norms, int *bad)
{
    const bool appends = head % SHARING == 0 && member() == 0;
    for (int item = thread() / 32; item < 3 * TOKENS; item += WARPS) {
        const int part = item / TOKENS, token = item % TOKENS;
        if (token >= chunks.fresh)
            continue;
        float2 pairs[PAIRS];
#pragma unroll
        for (int i = 0; i < PAIRS; ++i) {
            pairs[i] = {0, 0};
            if (pair_of(i) < HALF)
                pairs[i] = read_both(qkv_of_head() + (token * 3 + part) * HEAD_DIM, pair_of(i));
        }
        if (part < 2)
            norms.apply(pairs, part == 0);
#pragma unroll
        for (int i = 0; i < PAIRS; ++i) {
            const int at = pair_of(i);
            if (at >= HALF)
                continue;
            const float2 both = part < 2 ? rotated(pairs[i], token, at) : pairs[i];
            const number first = to_number(both.x), second = to_number(both.y);
            number *to = rows_at(part) + token * ROW_PITCH + at;
            to[0] = first, to[HALF] = second;
            if (!appends || part == 0)
                continue;
            const size_t row = ((size_t)chunks.past + token) * KV_HEADS + head / SHARING;
            to = (part == 1 ? layer.keys : layer.values) + row * HEAD_DIM + at;
            to[0] = first, to[HALF] = second;
            if (!(is_finite(from_number(first)) & is_finite(from_number(second))))
                *bad = 1;
        }
    }
    sync();
}
