// A decode step of up to TOKENS tokens as one kernel: from the tokens' ids to the next tokens.
//
// As many blocks as the GPU has multiprocessors run from the first layer to the head. A layer has five parts, and before
// each of them the blocks wait for the part before: queries, keys and values; attention; its projection; gate and up;
// down. While they wait, the weights of the parts to come are on their way (stream.cuh).
//
// decode.py defines these macros:
//   HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INNER, LAYERS, VOCABULARY, ROWS_OF_HEAD   the model's shapes
//   TOKENS               the most new tokens: 1, or up to 16
//   FORMAT, GROUP        how the layers' weights are stored (stored.cuh), and the inputs that share a scale of Int4
//   WARPS                warps of a block that compute; one more copies weights
//   SHARED_BYTES         shared memory of a block
//   MOST_SPLITS          the most parts of the cache, up to 8
//   ROW_WORDS_EXPECTED   the words that blocks exchange of a token, as decode.py counts them

__device__ void project_qkv(const Step &step, Place &place, int layer, int fresh)
{
    const Layer &of = layers()[layer];
    const NormWeights<Stored, QKV> weights(of.input_norm, fresh);
    product<Stored, QKV>(
        place, fresh, [&](int, int channel) -> float2 { return {scale_of(of, QKV, channel), from_wide(of.qkv_bias[channel])}; },
        [&](Inputs<Stored, QKV> &inputs) {
            if (layer)
                await(count(step, DOWN_THERE), blocks_with(DOWN) * layer);
            read_normalised<Stored, QKV>(inputs, weights, step.eps, fresh, [&](int token, int at) -> float4 {
                if (layer)
                    return summed(step, token, at);
                return {embedded(step, token, at), embedded(step, token, at + 1), embedded(step, token, at + 2),
                        embedded(step, token, at + 3)};
            });
        },
        [&](int token, int channel, float sum, float, float2 factors) {
            if (token >= 0)
                *row(step, token, QKV_AT + channel) = sum * factors.x + factors.y;
        });
    signal(count(step, QKV_THERE));
}

// Reads what attention has mixed. With one token, each block merges the parts of the cache itself: lanes take one each.
__device__ void read_mixed(const Step &step, Inputs<Stored, O_PROJ> &inputs, int fresh, int splits)
{
    typedef Inputs<Stored, O_PROJ> Of;
    const int split = thread() % 32 / 4;
    uint4 words[Of::STEPS][HALVES][Of::VALUES / 8] = {};
    if (TOKENS > 1) {
#pragma unroll
        for (int at = 0; at < Of::STEPS; ++at)
#pragma unroll
            for (int half = 0; half < HALVES; ++half)
#pragma unroll
                for (int i = 0; i < Of::VALUES / 8; ++i)
                    if (Of::has(at) && token_of(half) < fresh)
                        words[at][half][i] =
                            read_shared((const uint4 *)row(step, token_of(half), MIXED_AT + Of::column(at) / 2 + 4 * i));
    } else {
        float2 weights[Of::STEPS];
        float4 fours[Of::STEPS][Of::VALUES / 4];
#pragma unroll
        for (int at = 0; at < Of::STEPS; ++at) {
            const int part = Of::column(at) / HEAD_DIM * MOST_SPLITS + split;
            const bool has_one = Of::has(at) && split < splits;
            weights[at] = {NOTHING, 0};
            if (has_one)
                weights[at] = read_shared((const float2 *)row(step, 0, WEIGHTS_AT + 2 * part));
#pragma unroll
            for (int i = 0; i < Of::VALUES / 4; ++i) {
                fours[at][i] = {0, 0, 0, 0};
                if (has_one)
                    fours[at][i] = read_shared((const float4 *)row(step, 0, PARTS_AT + part * HEAD_DIM + Of::column(at) % HEAD_DIM + 4 * i));
            }
        }
#pragma unroll
        for (int at = 0; at < Of::STEPS; ++at) {
            float most = weights[at].x;
#pragma unroll
            for (int distance = 4; distance < 32; distance *= 2)
                most = fmaxf(most, __shfl_xor_sync(ALL, most, distance));
            const float by = exp2f(weights[at].x - most);
            float sum = weights[at].y * by;
#pragma unroll
            for (int distance = 4; distance < 32; distance *= 2)
                sum += __shfl_xor_sync(ALL, sum, distance);
            const float share = Of::has(at) ? by / sum : 0;
            float mean[Of::VALUES];
#pragma unroll
            for (int i = 0; i < Of::VALUES / 4; ++i) {
                const float4 four = fours[at][i];
                mean[4 * i] = four.x, mean[4 * i + 1] = four.y, mean[4 * i + 2] = four.z, mean[4 * i + 3] = four.w;
            }
#pragma unroll
            for (int i = 0; i < Of::VALUES; ++i) {
                mean[i] *= share;
#pragma unroll
                for (int distance = 4; distance < 32; distance *= 2)
                    mean[i] += __shfl_xor_sync(ALL, mean[i], distance);
            }
#pragma unroll
            for (int i = 0; i < Of::VALUES / 8; ++i)
                words[at][0][i] = {pack(mean[8 * i], mean[8 * i + 1]), pack(mean[8 * i + 2], mean[8 * i + 3]),
                                   pack(mean[8 * i + 4], mean[8 * i + 5]), pack(mean[8 * i + 6], mean[8 * i + 7])};
        }
    }
#pragma unroll
    for (int at = 0; at < Of::STEPS; ++at)
#pragma unroll
        for (int half = 0; half < HALVES; ++half)
            inputs.set(at, half, words[at][half]);
}

// Adds a product to the sum over the layers. Each block adds to its own columns.
template <int PRODUCT, class Prepare>
__device__ void add_product(const Step &step, Place &place, int layer, int fresh, bool first, Prepare prepare)
{
    const Layer &of = layers()[layer];
    product<Stored, PRODUCT>(
        place, fresh,
        [&](int token, int channel) -> float2 {
            return {scale_of(of, PRODUCT, channel), first ? embedded(step, token, channel) : read_shared(row(step, token, SUM_AT + channel))};
        },
        prepare,
        [&](int token, int channel, float sum, float, float2 factors) {
            if (token >= 0)
                *row(step, token, SUM_AT + channel) = sum * factors.x + factors.y;
        });
}

__device__ void project_mixed(const Step &step, Place &place, int layer, int fresh, int splits, unsigned goal)
{
    add_product<O_PROJ>(step, place, layer, fresh, layer == 0, [&](Inputs<Stored, O_PROJ> &inputs) {
        await(count(step, MIXED_THERE), goal);
        read_mixed(step, inputs, fresh, splits);
    });
    signal(count(step, O_THERE));
}

__device__ void project_gate_up(const Step &step, Place &place, int layer, int fresh)
{
    const Layer &of = layers()[layer];
    const NormWeights<Stored, GATE_UP> weights(of.post_norm, fresh);
    product<Stored, GATE_UP>(
        place, fresh,
        [&](int, int channel) -> float2 { return {scale_of(of, GATE_UP, channel), scale_of(of, GATE_UP, INNER + channel)}; },
        [&](Inputs<Stored, GATE_UP> &inputs) {
            await(count(step, O_THERE), blocks_with(O_PROJ) * (layer + 1));
            read_normalised<Stored, GATE_UP>(inputs, weights, step.eps, fresh,
                                             [&](int token, int at) { return summed(step, token, at); });
        },
        [&](int token, int channel, float gate, float up, float2 factors) {
            gate *= factors.x;
            if (token >= 0)
                ((number *)row(step, token, ACTIVE_AT))[channel] = to_number(gate / (1 + expf(-gate)) * (up * factors.y));
        });
    signal(count(step, ACTIVE_THERE));
}

__device__ void project_down(const Step &step, Place &place, int layer, int fresh)
{
    add_product<DOWN>(step, place, layer, fresh, false, [&](Inputs<Stored, DOWN> &inputs) {
        typedef Inputs<Stored, DOWN> Of;
        await(count(step, ACTIVE_THERE), blocks_with(GATE_UP) * (layer + 1));
#pragma unroll
        for (int at = 0; at < Of::STEPS; ++at)
#pragma unroll
            for (int half = 0; half < HALVES; ++half) {
                uint4 words[Of::VALUES / 8] = {};
                if (Of::has(at) && token_of(half) < fresh)
#pragma unroll
                    for (int i = 0; i < Of::VALUES / 8; ++i)
                        words[i] = read_shared((const uint4 *)row(step, token_of(half), ACTIVE_AT + Of::column(at) / 2 + 4 * i));
                inputs.set(at, half, words);
            }
    });
    signal(count(step, DOWN_THERE));
}

// All that the other warps do.
__device__ void compute(const Step &step)
{
    const int fresh = step.lengths[0], valid = step.lengths[1];
    for (int i = thread(); i < TOKENS * HALF; i += THREADS) {
        const int token = i / HALF, at = i % HALF;
        if (token < fresh) {
            const float angle = (float)step.positions[token] * step.frequencies[at];
            angles()[token * HEAD_DIM + at] = cosf(angle);
            angles()[token * HEAD_DIM + HALF + at] = sinf(angle);
        }
    }
    sync();
    Place place;
    const Cut cut(valid);
    const unsigned merges = TOKENS > 1 ? KV_HEADS * ROW_TILES : cut.tasks();
    for (int layer = 0; layer < LAYERS; ++layer) {
        ask_for_cache(cut, layer, fresh, valid);
        if (own_tiles(QKV))
            project_qkv(step, place, layer, fresh);
        attend_to_cache(step, cut, layer, fresh, valid);
        if (own_tiles(O_PROJ))
            project_mixed(step, place, layer, fresh, cut.splits, merges * (layer + 1));
        if (own_tiles(GATE_UP))
            project_gate_up(step, place, layer, fresh);
        if (own_tiles(DOWN))
            project_down(step, place, layer, fresh);
    }
    choose_in_block(step, place, fresh);
    __shared__ bool is_last;
    sync();
    if (thread() == 0)
        is_last = add_signal(count(step, BEST_THERE)) == gridDim.x - 1;
    sync();
    if (!is_last)
        return;
    choose(step, fresh);
    if (thread() < COUNTS + KV_HEADS * ROW_TILES)
        *count(step, thread()) = 0;
    if (thread() == 0 && step.ring)
        move_on(step);
}

extern "C" __global__ void __launch_bounds__(THREADS + 32, 1) decode(const __grid_constant__ Step step)
{
    for (int i = threadIdx.x; i < LAYERS * (int)(sizeof(Layer) / 8); i += THREADS + 32)
        ((unsigned long long *)layers())[i] = ((const unsigned long long *)step.layers)[i];
    begin_ring();
    __syncthreads();
    if (threadIdx.x >= THREADS)
        copy_weights();
    else
        compute(step);
}
