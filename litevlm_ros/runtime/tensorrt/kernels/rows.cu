// What the text decoder does with whole rows between the products of a block: the sum over the layers and its norm, the
// norms of heads, and the gate of the MLP. Rows are aligned to 16 bytes. All arithmetic is fp32.
//
// rows.py defines these macros of a model's shapes, in words of 16 bytes:
//   SUM_WORDS              width of the sum, 4 floats each
//   GATE_WORDS             width of the gate, 8 numbers each
//   NORM_THREADS           threads that normalise a row, whole warps
//   NORM_STEPS             words of a row that a thread normalises, at most
// and of heads:
//   HEADS, KV_HEADS        heads of queries, and of keys and of values
//   HEAD_WORDS             width of a head, 4 numbers each

// Writes `sum` = `total` + `change`, and `normalised` = sum / sqrt(mean(sum^2) + eps) * `weight`, 4 numbers a word.
// `sum` may be `total`. One block of NORM_THREADS a row.
extern "C" __global__ void add_and_normalise(const float4 *total, const float4 *change, const float4 *weight,
                                             float4 *sum, uint2 *normalised, float eps)
{
    __shared__ float of_warps[NORM_THREADS / 32];
    const size_t first = (size_t)blockIdx.x * SUM_WORDS;
    float4 sums[NORM_STEPS], weights[NORM_STEPS];
    float squares = 0;
    for (int i = 0; i < NORM_STEPS; ++i) {  // without a branch or a write, so that no read waits for another
        const int place = threadIdx.x + i * NORM_THREADS, at = place < SUM_WORDS ? place : SUM_WORDS - 1;
        const float4 before = total[first + at], more = change[first + at];
        sums[i] = {before.x + more.x, before.y + more.y, before.z + more.z, before.w + more.w};
        weights[i] = weight[at];
    }
    for (int i = 0; i < NORM_STEPS; ++i) {
        const int at = threadIdx.x + i * NORM_THREADS;
        const float4 one = sums[i];
        if (at < SUM_WORDS) {
            sum[first + at] = one;
            squares += one.x * one.x + one.y * one.y + (one.z * one.z + one.w * one.w);
        }
    }
    squares = sum_of_warp(squares);
    if (threadIdx.x % 32 == 0)
        of_warps[threadIdx.x / 32] = squares;
    __syncthreads();
    squares = 0;
    for (int warp = 0; warp < NORM_THREADS / 32; ++warp)
        squares += of_warps[warp];
    const float scale = 1 / sqrtf(squares / (4 * SUM_WORDS) + eps);
    for (int i = 0; i < NORM_STEPS; ++i) {
        const int at = threadIdx.x + i * NORM_THREADS;
        const float4 one = sums[i], by = weights[i];
        Group<uint2, number> four;
        four.each[0] = to_number(one.x * scale * by.x);
        four.each[1] = to_number(one.y * scale * by.y);
        four.each[2] = to_number(one.z * scale * by.z);
        four.each[3] = to_number(one.w * scale * by.w);
        if (at < SUM_WORDS)
            normalised[first + at] = four.words[0];
    }
}

// Replaces the queries and keys of `qkv` [rows, HEADS + 2 * KV_HEADS, 4 * HEAD_WORDS] by head / sqrt(mean(head^2) + eps) *
// weight, 4 numbers a word. One warp a head.
extern "C" __global__ void normalise_heads(number *qkv, const float4 *query_weight, const float4 *key_weight, int rows,
                                           float eps)
{
    const int STEPS = (HEAD_WORDS + 31) / 32;  // words of a lane, at most
    const unsigned warp = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    const unsigned row = warp / (HEADS + KV_HEADS), head = warp % (HEADS + KV_HEADS);
    if (row >= (unsigned)rows)
        return;
    number *at = qkv + ((size_t)row * (HEADS + 2 * KV_HEADS) + head) * 4 * HEAD_WORDS;
    const float4 *weight = head < HEADS ? query_weight : key_weight;
    Group<uint2, number> fours[STEPS];
    float squares = 0;
    for (int i = 0; i < STEPS; ++i)
        if (lane + 32 * i < HEAD_WORDS) {
            fours[i] = read_group<uint2>(at + 4 * (lane + 32 * i));
            for (int j = 0; j < 4; ++j)
                squares += from_number(fours[i].each[j]) * from_number(fours[i].each[j]);
        }
    squares = sum_of_warp(squares);
    const float scale = 1 / sqrtf(squares / (4 * HEAD_WORDS) + eps);
    for (int i = 0; i < STEPS; ++i)
        if (lane + 32 * i < HEAD_WORDS) {
            const float4 by = weight[lane + 32 * i];
            fours[i].each[0] = to_number(from_number(fours[i].each[0]) * scale * by.x);
            fours[i].each[1] = to_number(from_number(fours[i].each[1]) * scale * by.y);
            fours[i].each[2] = to_number(from_number(fours[i].each[2]) * scale * by.z);
            fours[i].each[3] = to_number(from_number(fours[i].each[3]) * scale * by.w);
            write_group(at + 4 * (lane + 32 * i), fours[i]);
        }
}

// Writes `active` [rows, 8 * GATE_WORDS] = silu(gate) * up; `both` holds a row's gate, and then its up. One thread for
// each word of `active`.
extern "C" __global__ void silu_gate(const number *both, number *active, int rows)
{
    const unsigned word = blockIdx.x * blockDim.x + threadIdx.x;
    if (word >= (unsigned)rows * GATE_WORDS)
        return;
    const number *from = both + 8 * ((size_t)word + word / GATE_WORDS * GATE_WORDS);
    Group<uint4, number> gates = read_group<uint4>(from);
    const Group<uint4, number> ups = read_group<uint4>(from + 8 * GATE_WORDS);
    for (int i = 0; i < 8; ++i) {
        const float gate = from_number(gates.each[i]);
        gates.each[i] = to_number(gated(gate, gate) * from_number(ups.each[i]));
    }
    write_group(active + 8 * (size_t)word, gates);
}
