// Attention of the new tokens by one head, whose team divides the cache. Queries are rows. Warps take 16 keys at a time, a
// chunk, and their sums are then merged, first those of a block and then those of the team.

// The chunks of a head's keys that a block attends to: those of the cache in turn, and a last one of the new keys.
struct Chunks {
    int past, fresh;
    __device__ int old() const { return (past + 15) / 16; }
    // The warps of this block that have any.
    __device__ int warps() const
    {
        const int own = (old() + 1 - member() + TEAM - 1) / TEAM;
        return own < MIX_WARPS ? own : MIX_WARPS;
    }
    __device__ int of_warp(int warp) const { return member() + TEAM * warp; }
};

// A chunk as a lane holds it: of keys `row` and row + 8, numbers 8 * place and those that follow, of every 32.
struct Chunk {
    uint4 keys[2][HEAD_DIM / 32], values[2][HEAD_DIM / 32];

    // Reads rows `begin` and later, before `end`, which lie `pitch` apart.
    __device__ void read(const number *from_keys, const number *from_values, int begin, int end, int pitch)
    {
        const int lane = thread() % 32;
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            const int at = begin + 8 * n + lane / 4;
            const size_t from = (size_t)at * pitch + lane % 4 * 8;
#pragma unroll
            for (int i = 0; i < HEAD_DIM / 32; ++i) {
                keys[n][i] = values[n][i] = {0, 0, 0, 0};
                if (at < end) {
                    keys[n][i] = *(const uint4 *)(from_keys + from + 32 * i);
                    values[n][i] = *(const uint4 *)(from_values + from + 32 * i);
                }
            }
        }
    }
};

__device__ void read_cached(Chunk &chunk, const Layer &layer, int head, const Chunks &chunks, int index)
{
    const int group = head / SHARING * HEAD_DIM;
    chunk.read(layer.keys + group, layer.values + group, 16 * index, chunks.past, KV_HEADS * HEAD_DIM);
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

// What a warp knows of its rows, of which a lane has row group and row group + 8.
struct Mixed {
    float most[HALVES], sum[HALVES], out[HEAD_DIM / 8][4];
};

// 32 numbers of the queries of a lane's rows, as the halves of tensor cores' first operand.
struct Asked {
    unsigned front[4], back[4];
    Asked() = default;
    __device__ Asked(int which)
    {
        const int lane = thread() % 32, row = lane / 4, place = lane % 4;
        uint4 words[2] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
#pragma unroll
        for (int half = 0; half < 2; ++half)
            if (8 * half + row < TOKENS)
                words[half] = *(const uint4 *)(queries() + (8 * half + row) * ROW_PITCH + 32 * which + 8 * place);
        front[0] = words[0].x, front[1] = words[1].x, front[2] = words[0].y, front[3] = words[1].y;
        back[0] = words[0].z, back[1] = words[1].z, back[2] = words[0].w, back[3] = words[1].w;
    }
};

// Mixes the values of this warp's chunks, of which the first has been read unless it is that of the new keys.
__device__ void mix(Mixed &mixed, Chunk &chunk, const Layer &layer, const Chunks &chunks, int head)
{
    const int lane = thread() % 32, row = lane / 4, place = lane % 4;
    // A wide head's queries are read for each chunk: to keep them would take registers that its values need.
    constexpr bool KEEPS = HEAD_DIM <= 64;
    Asked kept[HEAD_DIM / 32];
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 32; ++i)
        if (KEEPS)
            kept[i] = Asked(i);
#pragma unroll
    for (int half = 0; half < HALVES; ++half)
        mixed.most[half] = NOTHING, mixed.sum[half] = 0;
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 8; ++i)
        mixed.out[i][0] = mixed.out[i][1] = mixed.out[i][2] = mixed.out[i][3] = 0;
    const float scale = rsqrtf((float)HEAD_DIM) * 1.44269504f;  // powers of two are what the hardware has
    for (int index = chunks.of_warp(thread() / 32); index <= chunks.old(); index += TEAM * MIX_WARPS) {
        const bool is_new = index == chunks.old();
        if (is_new)
            chunk.read(new_keys(), new_values(), 0, chunks.fresh, ROW_PITCH);
        float scores[2][4] = {};
#pragma unroll
        for (int i = 0; i < HEAD_DIM / 32; ++i) {
            const Asked asked = KEEPS ? kept[i] : Asked(i);
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                const uint4 &word = chunk.keys[n][i];
                multiply(scores[n], asked.front, word.x, word.y);
                multiply(scores[n], asked.back, word.z, word.w);
            }
        }
        unsigned weights[4] = {0, 0, 0, 0};
#pragma unroll
        for (int half = 0; half < HALVES; ++half) {
            // The last key that the row sees: all of the cache, and of the new keys those up to its own.
            const int last = is_new ? 8 * half + row : chunks.past - 1 - 16 * index;
            float most = mixed.most[half];
#pragma unroll
            for (int n = 0; n < 2; ++n)
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    float &score = scores[n][2 * half + i];
                    score = 8 * n + 2 * place + i <= last ? score * scale : NOTHING;
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
            const uint4 &one = chunk.values[0][i], &two = chunk.values[1][i];
            const unsigned low[4] = {one.x, one.y, one.z, one.w}, high[4] = {two.x, two.y, two.z, two.w};
#pragma unroll
            for (int j = 0; j < 4; ++j)
                multiply(mixed.out[4 * i + j], weights, transpose(low[j]), transpose(high[j]));
        }
        if (index + TEAM * MIX_WARPS < chunks.old())
            read_cached(chunk, layer, head, chunks, index + TEAM * MIX_WARPS);
    }
#pragma unroll
    for (int half = 0; half < HALVES; ++half)
        mixed.sum[half] = sum_of_four(mixed.sum[half]);
}

// Leaves what a warp knows in its place of the room: for each token HEAD_DIM sums, the largest score and the sum of weights.
__device__ void leave(const Mixed &mixed)
{
    const unsigned lane = thread() % 32, place = lane % 4;
#pragma unroll
    for (int half = 0; half < HALVES; ++half) {
        const int token = lane / 4 + 8 * half;
        if (token >= TOKENS)
            continue;
        float *at = room() + (thread() / 32 * TOKENS + token) * MIXED_PITCH;
#pragma unroll
        for (int i = 0; i < HEAD_DIM / 8; ++i)
            *(float2 *)(at + i / 4 * 32 + 8 * place + 2 * (i % 4)) = {mixed.out[i][2 * half], mixed.out[i][2 * half + 1]};
        if (place == 0)
            *(float2 *)(at + HEAD_DIM) = {mixed.most[half], mixed.sum[half]};
    }
}

// Two neighbours of a row's sums, with the largest score and the sum of weights that they belong to.
struct Merged {
    float most = NOTHING, sum = 0;
    float2 mean = {0, 0};
    // Merges `parts`, which lie `apart` floats apart. The numbers are at `at`.
    __device__ Merged(const float *from, int parts, int apart, int at)
    {
        for (int i = 0; i < parts; ++i)
            most = fmaxf(most, from[i * apart + HEAD_DIM]);
        for (int i = 0; i < parts; ++i) {
            const float2 weights = *(const float2 *)(from + i * apart + HEAD_DIM);
            const float2 two = *(const float2 *)(from + i * apart + at);
            const float by = exp2f(weights.x - most);
            sum += by * weights.y;
            mean.x += by * two.x, mean.y += by * two.y;
        }
    }
};

// Merges what the block's warps have left, and hands it to the team.
__device__ void hand_part(const Chunks &chunks)
{
    for (int i = thread(); i < TOKENS * HALF; i += THREADS) {
        const int token = i / HALF, at = i % HALF * 2;
        if (token >= chunks.fresh)
            continue;
        const Merged merged(room() + token * MIXED_PITCH, chunks.warps(), TOKENS * MIXED_PITCH, at);
        float *to = part_of(member(), token);
        hand(PARTS, to + at, words_of(merged.mean.x, merged.mean.y));
        if (at == 0)
            hand(PARTS, to + HEAD_DIM, words_of(merged.most, merged.sum));
    }
}

// Merges the parts of the team.
__device__ void merge_parts(const Chunks &chunks)
{
    for (int i = thread(); i < TOKENS * HALF; i += THREADS) {
        const int token = i / HALF, at = i % HALF * 2;
        if (token >= chunks.fresh)
            continue;
        const Merged merged(part_of(0, token), TEAM, TOKENS * PART_PITCH, at);
        const float share = 1 / merged.sum;
        *(unsigned *)(mixed_rows() + token * ROW_PITCH + at) = pack(merged.mean.x * share, merged.mean.y * share);
    }
}

// What a layer reads besides weights comes nearer, long before it is needed: old keys and values, and norms.
__device__ void ask_for_layer(int layer, int past)
{
    if (layer >= LAYERS)
        return;
    const Layer &of = layers()[layer];
    if (team() < HEADS) {
        const int group = team() / SHARING;
        for (int i = thread(); i < 2 * past; i += THREADS) {
            const int row = i / 2;
            if (row / 16 % TEAM == member() && row / 16 / TEAM % SHARING == team() % SHARING)
                ask_for((i % 2 ? of.values : of.keys) + ((size_t)row * KV_HEADS + group) * HEAD_DIM);
        }
    }
    const int lines = HIDDEN / 32, own = (int)blockIdx.x * THREADS + (int)thread();
    for (int i = own; i < 2 * lines; i += BLOCKS * THREADS)
        ask_for((i < lines ? of.input_norm : of.post_norm) + i % lines * 32);
}
