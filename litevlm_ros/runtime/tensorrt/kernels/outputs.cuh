// What becomes of the products of a layer.

// Queries, keys and values of a head are handed to the team.
struct QkvOutput {
    const Layer &layer;
    const int head, fresh;
    float2 scales, biases;
    __device__ void prepare(int tile)
    {
        const int row = row_of(QKV, head, tile, 2 * place_of());
        scales = two_scales<Stored>(layer, QKV, row, row + 1);
        biases = {0, 0};
        if (layer.qkv_bias)
            biases = {from_wide(layer.qkv_bias[row]), from_wide(layer.qkv_bias[row + 1])};
    }
    __device__ void take(int tile, const float (&sum)[4])
    {
#pragma unroll
        for (int half = 0; half < HALVES; ++half)
            if (token_of(half) < fresh)
                hand(QKV_OF_HEAD, qkv_of_head() + token_of(half) * 3 * HEAD_DIM + TILE * tile + 2 * place_of(),
                     words_of(sum[2 * half] * scales.x + biases.x, sum[2 * half + 1] * scales.y + biases.y));
    }
};

// Channels of the MLP are handed to the team, active. Lanes of places 0 and 1 have gate, and those two further have up.
struct ActiveOutput {
    const Layer &layer;
    const int fresh;
    float2 scales;
    __device__ void prepare(int tile)
    {
        const int row = row_of(GATE_UP, 0, tile, 2 * place_of());
        scales = two_scales<Stored>(layer, GATE_UP, row, row + 1);
    }
    __device__ void take(int tile, const float (&sum)[4])
    {
#pragma unroll
        for (int half = 0; half < HALVES; ++half) {
            const float one = sum[2 * half] * scales.x, other = sum[2 * half + 1] * scales.y;
            const float up = __shfl_xor_sync(ALL, one, 2), other_up = __shfl_xor_sync(ALL, other, 2);
            const unsigned two = pack(gated(one, one) * up, gated(other, other) * other_up);
            const unsigned next = __shfl_xor_sync(ALL, two, 1);
            if (token_of(half) < fresh && place_of() == 0)
                hand(ACTIVE, active() + token_of(half) * ACTIVE_PITCH + 4 * tile, {two, next});
        }
    }
};

// The team's part of the sum of the turn that follows `turn`. One team adds the sum so far once, and clears the sum after.
template <int PRODUCT> struct SumOutput {
    const Step &step;
    const Layer &layer;
    const int turn, fresh;
    const bool adds_sum;
    float2 scales, sums[HALVES];
    __device__ void prepare(int tile)
    {
        const int row = TILE * tile + 2 * place_of();
        scales = two_scales<Stored>(layer, PRODUCT, row, row + 1);
#pragma unroll
        for (int half = 0; half < HALVES; ++half) {
            sums[half] = {0, 0};
            if (adds_sum && token_of(half) < fresh)
                sums[half] = two_of_sum(step, turn, token_of(half), row);
        }
    }
    __device__ void take(int tile, const float (&sum)[4])
    {
#pragma unroll
        for (int half = 0; half < HALVES; ++half) {
            const int token = token_of(half), at = TILE * tile + 2 * place_of();
            if (token >= fresh)
                continue;
            const float by = coarse()[token];
            add_both(sum_of(step, turn + 1, token, at), rounded(sum[2 * half] * scales.x + sums[half].x, by),
                     rounded(sum[2 * half + 1] * scales.y + sums[half].y, by));
            if (adds_sum)
                *(float2 *)sum_of(step, turn + 2, token, at) = {0, 0};
        }
    }
};
