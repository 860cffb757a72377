// A decode step: what it reads and writes, what its blocks hand to each other, and how they wait for each other.

struct Step {
    const Layer *layers;
    const void *embedding;             // [ROWS_OF_HEAD, HIDDEN], in Words
    const unsigned short *word_scales; // [ROWS_OF_HEAD], if Words have scales
    const unsigned short *visual;      // [rows, HIDDEN], the rows of ids from VOCABULARY on
    const float *final_norm;
    const float *frequencies;          // [HEAD_DIM / 2]
    long long *ids, *positions;        // [TOKENS]
    int *lengths;                      // new tokens, and rows of the cache that are valid once those are appended
    float *sums;                       // [3, 16, HIDDEN]: of the second, new tokens' rows are zero before and after a launch
    float *best;                       // [TOKENS, BLOCKS]: the largest logit of each block
    int *best_at;                      // [TOKENS, BLOCKS]
    unsigned *counts;                  // [COUNTS, 32], of which each takes the first: zero before and after a launch
    number *logits;                    // [TOKENS, ROWS_OF_HEAD]
    long long *next_tokens;            // [TOKENS]
    int *bad;                          // [LAYERS + 1]: 1 where a layer's keys or values, or the logits, are not finite
    const unsigned *allowed;           // a bit for each token that may be chosen, or null
    unsigned *penalised;               // a bit for each token whose logit is penalised, or null
    const float *penalty;
    long long *steps;                  // of a decode step that moves on by itself, or null
    volatile long long *ring;          // [ring_size], of the host
    float eps;
    int visual_is_bf16, ring_size, padding;
};

// Counts of blocks that have added their parts of a product to the sum, and of those that have their best logit.
enum Count { O_THERE, DOWN_THERE, BEST_THERE, COUNTS };

__device__ unsigned *count(const Step &step, int which) { return step.counts + 32 * which; }  // a line for each

// Waits until `goal` signals have come, in one warp or in all that compute.
__device__ void await_in_warp(const unsigned *count, unsigned goal)
{
    if (threadIdx.x % 32 == 0)
        await_in_thread(count, goal);
    __syncwarp();
}

__device__ void await(const unsigned *count, unsigned goal)
{
    if (threadIdx.x == 0)
        await_in_thread(count, goal);
    sync();
}

// The sum over the layers is made anew twice a layer, in turn number `turn` from that of the turn before. All teams add
// their parts to it at the same time. Of three sums, one is read meanwhile, one is added to, and one is cleared.
__device__ float *sum_of(const Step &step, int turn, int token, int at)
{
    return step.sums + (turn % 3 * 16 + token) * HIDDEN + at;
}

template <class Format> __device__ float2 two_scales(const Layer &layer, int product, int row, int other)
{
    if (!Format::HAS_SCALES)
        return {1, 1};
    const unsigned short *scales = layer.scales[product];
    return {from_half(scales[row]) * Format::UNIT, from_half(scales[other]) * Format::UNIT};
}

// Rounds as weights.cu does when it unpacks.
__device__ float embedded_word(const Step &step, long long id, int at)
{
    const float value = Words::value_at(step.embedding, (size_t)id * HIDDEN + at);
    return Words::HAS_SCALES ? from_number(to_number(value * from_half(step.word_scales[id]))) : value;
}

__device__ float embedded(const Step &step, int token, int at)
{
    const long long id = step.ids[token];
    if (id < VOCABULARY)
        return embedded_word(step, id, at);
    const unsigned short number = step.visual[(size_t)(id - VOCABULARY) * HIDDEN + at];
    return step.visual_is_bf16 ? from_bf16(number) : from_half(number);
}

// The sum of a turn: that of the first one is the embedding.
__device__ float4 four_of_sum(const Step &step, int turn, int token, int at)
{
    if (turn)
        return read_shared((const float4 *)sum_of(step, turn, token, at));
    return {embedded(step, token, at), embedded(step, token, at + 1), embedded(step, token, at + 2),
            embedded(step, token, at + 3)};
}

__device__ float2 two_of_sum(const Step &step, int turn, int token, int at)
{
    if (turn)
        return read_shared((const float2 *)sum_of(step, turn, token, at));
    return {embedded(step, token, at), embedded(step, token, at + 1)};
}
