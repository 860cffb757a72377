// Attention of a layer by many blocks: the cache is cut into parts, which blocks attend to (attend.cuh), and what they mix is
// merged.

// How the cache is cut: into parts of whole 16 keys, at least 64.
struct Cut {
    int keys, splits;
    __device__ Cut(int valid)
    {
        keys = (valid + MOST_SPLITS - 1) / MOST_SPLITS;
        keys = keys < 64 ? 64 : (keys + 15) / 16 * 16;
        splits = (valid + keys - 1) / keys;
    }
    __device__ int tasks() const { return splits * KV_HEADS * ROW_TILES; }
};

// A part of a layer's attention: some rows of queries, a group of heads, and a part of the cache.
struct Task {
    int split, group, tile;
    Span span;
    __device__ Task(int index, const Cut &cut, int fresh, int valid)
        : split(index / (KV_HEADS * ROW_TILES)), group(index / ROW_TILES % KV_HEADS), tile(index % ROW_TILES)
    {
        const int begin = split * cut.keys, end = begin + cut.keys;
        span = {valid - fresh, fresh, begin, end < valid ? end : valid};
    }
};

// Merges the parts of the cache of 16 rows, when they are all there.
__device__ void merge_parts(const Step &step, const Task &task, const Cut &cut, int layer)
{
    __shared__ bool is_last;
    if (threadIdx.x == 0)
        is_last = add_signal(count(step, COUNTS + task.group * ROW_TILES + task.tile)) + 1 == cut.splits * (layer + 1u);
    sync();
    if (!is_last)
        return;
    for (int i = thread(); i < 16 * HEAD_DIM / 4; i += THREADS) {
        const int query = 16 * task.tile + i / (HEAD_DIM / 4), token = query / SHARING, at = i % (HEAD_DIM / 4) * 4;
        if (token >= task.span.fresh)
            continue;
        const int head = task.group * SHARING + query % SHARING, from = head * MOST_SPLITS;
        float most = NOTHING, sum = 0;
        float2 weights[MOST_SPLITS];
        float4 fours[MOST_SPLITS], mean = {0, 0, 0, 0};
#pragma unroll
        for (int split = 0; split < MOST_SPLITS; ++split) {
            weights[split] = {NOTHING, 0}, fours[split] = {0, 0, 0, 0};
            if (split < cut.splits) {
                weights[split] = read_shared((const float2 *)row(step, token, WEIGHTS_AT + 2 * (from + split)));
                fours[split] = read_shared((const float4 *)row(step, token, PARTS_AT + (from + split) * HEAD_DIM + at));
            }
            most = fmaxf(most, weights[split].x);
        }
#pragma unroll
        for (int split = 0; split < MOST_SPLITS; ++split) {
            const float by = exp2f(weights[split].x - most);
            sum += by * weights[split].y;
            mean.x += by * fours[split].x, mean.y += by * fours[split].y;
            mean.z += by * fours[split].z, mean.w += by * fours[split].w;
        }
        const float share = 1 / sum;
        *(uint2 *)row(step, token, MIXED_AT + (head * HEAD_DIM + at) / 2) = {pack(mean.x * share, mean.y * share),
                                                                             pack(mean.z * share, mean.w * share)};
    }
    sync();
    signal(count(step, MIXED_THERE));
}

__device__ void attend_to_cache(const Step &step, const Cut &cut, int layer, int fresh, int valid)
{
    const Layer &of = layers()[layer];
    const int first = gridDim.x - 1 - blockIdx.x;
    if (first >= cut.tasks())
        return;
    await(count(step, QKV_THERE), blocks_with(QKV) * (layer + 1));
    for (int index = first; index < cut.tasks(); index += gridDim.x) {
        const Task task(index, cut, fresh, valid);
        attend(step.exchange, of.keys, of.values, task.span, task.group, task.tile, task.split, step.bad + layer);
        sync();
        if (TOKENS > 1)
            merge_parts(step, task, cut, layer);
        else
            signal(count(step, MIXED_THERE));
    }
}

// Old keys and values come nearer before they are needed.
__device__ void ask_for_cache(const Cut &cut, int layer, int fresh, int valid)
{
    const int first = gridDim.x - 1 - blockIdx.x;
    if (first >= cut.tasks())
        return;
    const Task task(first, cut, fresh, valid);
    for (int i = thread(); i < 2 * (task.span.end - task.span.begin); i += THREADS) {
        const size_t at = ((size_t)(task.span.begin + i / 2) * KV_HEADS + task.group) * HEAD_DIM;
        ask_for((i % 2 ? layers()[layer].values : layers()[layer].keys) + at);
    }
}

