// What each block has to do with a model's weights.
//
// The blocks are divided into TEAMS teams of TEAM blocks. A team takes whole heads of attention: their queries, keys and
// values, and the columns of the projection behind them. It also takes some channels of the MLP: their rows of gate and up,
// and their columns of down. So what leaves a team are its parts of the sum over the layers, twice a layer.
//
// Rows of weights are cut into tiles of 8, which the blocks of a team take in turn. The tiles of the head are everybody's.

typedef FORMAT Stored;      // of the layers
typedef WORD_FORMAT Words;  // of the embedding and the head

enum Product { QKV, O_PROJ, GATE_UP, DOWN, HEAD };
enum {
    PRODUCTS = 4, TILE = 8, THREADS = 32 * WARPS, BLOCKS = TEAMS * TEAM,
    SHARING = HEADS / KV_HEADS,
    HALF = HEAD_DIM / 2,
    HALVES = TOKENS > 8 ? 2 : 1,  // of 16 tokens, that hold any
    STEP_COLUMNS = 4 * Stored::VALUES,
    UNITS = INNER / STEP_COLUMNS,  // channels of the MLP are given out in units of as many
    MOST_UNITS = (UNITS + TEAMS - 1) / TEAMS
};

// The weights of a layer, and behind them the head's. Scales are fp16, for each row or for each group of a row.
struct Layer {
    const void *weights[PRODUCTS + 1];
    const unsigned short *scales[PRODUCTS + 1];
    const wide *qkv_bias;  // or null
    const float *input_norm, *post_norm;
    const float *q_norm, *k_norm;  // [HEAD_DIM], if QK_NORM is defined
    number *keys, *values;
};

__device__ int team() { return blockIdx.x / TEAM; }
__device__ int member() { return blockIdx.x % TEAM; }
__device__ int first_unit() { return team() * UNITS / TEAMS; }
__device__ int own_units() { return (team() + 1) * UNITS / TEAMS - first_unit(); }

__device__ constexpr int columns_of(int product)
{
    return product == O_PROJ ? HEADS * HEAD_DIM : product == DOWN ? INNER : HIDDEN;
}

// The tiles of a block's team, or of all: gate and up of four channels are a tile.
__device__ int tiles_of(int product)
{
    return product == QKV ? 3 * HEAD_DIM / TILE : product == GATE_UP ? own_units() * STEP_COLUMNS / 4
         : product == HEAD ? ROWS_OF_HEAD / TILE : HIDDEN / TILE;
}

__device__ int own_tiles(int product)
{
    const int first = product == HEAD ? blockIdx.x : member(), apart = product == HEAD ? BLOCKS : TEAM;
    return (tiles_of(product) - first + apart - 1) / apart;
}

// The tile of a block's tile.
__device__ int tile_at(int product, int index)
{
    return product == HEAD ? (int)blockIdx.x + index * BLOCKS : member() + index * TEAM;
}

// The weights' row of a tile's row. `head` counts for QKV only.
__device__ int row_of(int product, int head, int tile, int row)
{
    if (product == QKV) {
        const int part = tile / (HEAD_DIM / TILE), key_head = HEADS + head / SHARING;
        const int from = part == 0 ? head : key_head + (part - 1) * KV_HEADS;
        return from * HEAD_DIM + tile % (HEAD_DIM / TILE) * TILE + row;
    }
    if (product == GATE_UP)
        return first_unit() * STEP_COLUMNS + 4 * tile + row % 4 + row / 4 * INNER;
    return TILE * tile + row;
}

// The words of a row are taken in steps of four lanes.
template <class Format> __device__ constexpr int step_bytes() { return 4 * sizeof(typename Format::Word); }

// The first step, and the steps, of what a block reads of a row.
__device__ int first_step(int product, int head)
{
    return product == O_PROJ ? head * HEAD_DIM / STEP_COLUMNS : product == DOWN ? first_unit() : 0;
}

template <class Format> __device__ constexpr int most_steps(int product)  // of any team
{
    return product == O_PROJ ? HEAD_DIM / STEP_COLUMNS
         : product == DOWN   ? MOST_UNITS
                             : columns_of(product) / (4 * Format::VALUES);
}

template <class Format> __device__ int steps_of(int product)
{
    return product == DOWN ? own_units() : most_steps<Format>(product);
}
