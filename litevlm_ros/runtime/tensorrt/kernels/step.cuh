// A decode step: what it reads and writes, what its blocks hand to each other, and how they wait for each other.

struct Step {
    const Layer *layers;
    const number *embedding;           // [ROWS_OF_HEAD, HIDDEN]
    const unsigned short *visual;      // [rows, HIDDEN], the rows of ids from VOCABULARY on
    const float *final_norm;
    const float *frequencies;          // [HEAD_DIM / 2]
    long long *ids, *positions;        // [TOKENS]
    int *lengths;                      // new tokens, and rows of the cache that are valid once those are appended
    float *exchange;                   // [TOKENS, ROW_WORDS]
    float *best;                       // [TOKENS, gridDim.x]: the largest logit of each block
    int *best_at;                      // [TOKENS, gridDim.x]
    unsigned *counts;                  // [64, 32], of which each takes the first: zero before and after a launch
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

// Counts of blocks that are done with a part. Behind them are those of 16 rows of queries each.
enum Count { QKV_THERE, MIXED_THERE, O_THERE, ACTIVE_THERE, DOWN_THERE, BEST_THERE, COUNTS };

static_assert(COUNTS + KV_HEADS * ROW_TILES <= 64, "decode.py has room for 64 counts");

__device__ unsigned *count(const Step &step, int which) { return step.counts + 32 * which; }  // a line for each

// The words of a token, from `at` on.
__device__ float *row(const Step &step, int token, int at) { return step.exchange + token * ROW_WORDS + at; }

__device__ float scale_of(const Layer &layer, int product, int row)
{
    return Stored::HAS_SCALES ? from_half(layer.scales[product][row]) * Stored::UNIT : 1;
}

__device__ float embedded(const Step &step, int token, int at)
{
    const long long id = step.ids[token];
    if (id < VOCABULARY)
        return from_number(step.embedding[(size_t)id * HIDDEN + at]);
    const unsigned short number = step.visual[(size_t)(id - VOCABULARY) * HIDDEN + at];
    return step.visual_is_bf16 ? from_bf16(number) : from_half(number);
}

__device__ float4 summed(const Step &step, int token, int at) { return read_shared((const float4 *)row(step, token, SUM_AT + at)); }

// The blocks that have tiles of a product.
__device__ unsigned blocks_with(int product)
{
    return tiles_of(product) < (int)gridDim.x ? tiles_of(product) : gridDim.x;
}

