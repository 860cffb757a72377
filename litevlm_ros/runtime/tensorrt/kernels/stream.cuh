// A model's weights on their way to the warps that multiply by them, in the order in which they are needed.
//
// Each layer has four products, and behind the last layer is the head. A product's rows are cut into tiles of 8, which the
// blocks take in turn, and the tiles' columns into pieces. So what a block reads is known from the first layer to the
// head, and one of its warps copies it to a ring in shared memory, while the others wait for other blocks and compute.

typedef FORMAT Stored;  // of the layers; the head is Plain

enum Product { QKV, O_PROJ, GATE_UP, DOWN, HEAD };
enum {
    PRODUCTS = 4, TILE = 8, THREADS = 32 * WARPS,
    QKV_WIDTH = (HEADS + 2 * KV_HEADS) * HEAD_DIM,
    MIXED = HEADS * HEAD_DIM,
    SHARING = HEADS / KV_HEADS,
    HALF = HEAD_DIM / 2,
    ROW_HALVES = TOKENS * SHARING > 8 ? 2 : 1,     // of 16 rows of queries, that hold any
    ROW_TILES = (TOKENS * SHARING + 15) / 16,
    QUERY_PITCH = HEAD_DIM + 32,                   // so that lanes read from different banks
    MIXED_PITCH = HEAD_DIM + 8,                    // the same, and what lies behind the numbers
    MIXED_OF_WARP = 8 * ROW_HALVES * MIXED_PITCH,
    MIX_ROOM = WARPS * MIXED_OF_WARP,
    QUERY_ROOM = 16 * QUERY_PITCH / 2
};

// What blocks hand to each other of a token, in words of 4 bytes: the sum over the layers; queries, keys and values before
// rotation; what attention mixes of each part of the cache, and its largest score and sum of weights; what is mixed of all
// parts; and the MLP's active channels. Pairs of numbers are a word.
enum {
    SUM_AT = 0,
    QKV_AT = HIDDEN,
    PARTS_AT = QKV_AT + QKV_WIDTH,
    WEIGHTS_AT = PARTS_AT + HEADS * MOST_SPLITS * HEAD_DIM,
    MIXED_AT = WEIGHTS_AT + (2 * HEADS * MOST_SPLITS + 3) / 4 * 4,
    ACTIVE_AT = MIXED_AT + MIXED / 2,
    ROW_WORDS = (ACTIVE_AT + INNER / 2 + 3) / 4 * 4
};
static_assert(ROW_WORDS == ROW_WORDS_EXPECTED, "decode.py counts other words");
static_assert(MOST_SPLITS <= 8, "eight groups of lanes take a part of the cache each");

// The weights of a layer, and behind them the head's. Scales are fp16, for each row or for each group of a row.
struct Layer {
    const void *weights[PRODUCTS + 1];
    const unsigned short *scales[PRODUCTS];
    const wide *qkv_bias;
    const float *input_norm, *post_norm;
    number *keys, *values;
};

__device__ constexpr int columns_of(int product)
{
    return product == O_PROJ ? MIXED : product == DOWN ? INNER : HIDDEN;
}

// Gate and up of four channels are a tile.
__device__ constexpr int tiles_of(int product)
{
    return product == QKV ? QKV_WIDTH / TILE : product == GATE_UP ? INNER / 4 : product == HEAD ? ROWS_OF_HEAD / TILE
                                                                                               : HIDDEN / TILE;
}

// The words of a row, each of which is a step of four lanes.
template <class Format> __device__ constexpr int steps_of(int product)
{
    return columns_of(product) / (4 * Format::VALUES);
}

template <class Format> __device__ constexpr int step_bytes() { return 4 * sizeof(typename Format::Word); }

enum {
    PIECE_STEPS = steps_of<Stored>(GATE_UP) <= WARPS ? WARPS : 2 * WARPS,  // one or two of each warp
    ROW_SCALES = Stored::HAS_GROUPS ? PIECE_STEPS * 4 * Stored::VALUES / GROUP + 2 : 0,  // fp16, of a row of a piece
    SCALE_PITCH = (ROW_SCALES + 1) / 2 * 4
};

// The bytes from row to row of a piece, such that lanes read from different banks.
template <class Format> __device__ constexpr int pitch_of()
{
    return (PIECE_STEPS * step_bytes<Format>() + 127) / 128 * 128 + step_bytes<Format>();
}

enum {
    PIECE_BYTES = TILE * (pitch_of<Stored>() > pitch_of<Plain>() ? pitch_of<Stored>() : pitch_of<Plain>()),
    SLOT_BYTES = PIECE_BYTES + TILE * SCALE_PITCH,
    HALVES = TOKENS > 8 ? 2 : 1,  // of 16 tokens, that hold any
    ROOM_TILES = TOKENS > 8 ? 4 : TOKENS > 1 ? 8 : 32,
    PRODUCT_ROOM = ROOM_TILES * (WARPS * TOKENS * TILE + TILE),
    ROOM = PRODUCT_ROOM > MIX_ROOM + QUERY_ROOM ? PRODUCT_ROOM : MIX_ROOM + QUERY_ROOM,
    OTHER_BYTES = 4 * (ROOM + TOKENS * HEAD_DIM + TOKENS * 16) + LAYERS * (int)sizeof(Layer),
    SLOTS = (SHARED_BYTES - OTHER_BYTES) / (SLOT_BYTES + 2 * (int)sizeof(Barrier))
};
static_assert(SLOTS >= 2, "a multiprocessor has too little shared memory for this model");

// The shared memory of a block has these places one behind the other. `room` serves one part of a layer after the other.
extern __shared__ uint4 memory[];
__device__ char *slot_at(int slot) { return (char *)memory + slot * SLOT_BYTES; }
__device__ float *room() { return (float *)((char *)memory + SLOTS * SLOT_BYTES); }
__device__ float *angles() { return room() + ROOM; }                           // [TOKENS, HEAD_DIM]: cosines, sines
__device__ float *squares_of_warps() { return angles() + TOKENS * HEAD_DIM; }  // [TOKENS, 16]
__device__ Layer *layers() { return (Layer *)(squares_of_warps() + TOKENS * 16); }
__device__ Barrier *filled(int slot) { return (Barrier *)(layers() + LAYERS) + slot; }
__device__ Barrier *emptied(int slot) { return filled(SLOTS) + slot; }

// The first tile of this block; the others follow gridDim.x apart. What does not divide evenly goes to different blocks.
__device__ int first_tile(int product)
{
    const unsigned shift = product == QKV || product == GATE_UP ? HIDDEN / TILE % gridDim.x : 0;
    return (blockIdx.x + gridDim.x - shift) % gridDim.x;
}

__device__ int own_tiles(int product)
{
    const int left = tiles_of(product) - first_tile(product);
    return left <= 0 ? 0 : (left + (int)gridDim.x - 1) / (int)gridDim.x;
}

template <class Format> __device__ constexpr int pieces_of(int product)
{
    return (steps_of<Format>(product) + PIECE_STEPS - 1) / PIECE_STEPS;
}

template <class Format> __device__ constexpr int steps_in(int product, int piece)
{
    return piece + 1 < pieces_of<Format>(product) ? PIECE_STEPS : steps_of<Format>(product) - piece * PIECE_STEPS;
}

// The row of a tile's row.
__device__ int row_of(int product, int tile, int row)
{
    return product == GATE_UP ? 4 * tile + row % 4 + row / 4 * INNER : TILE * tile + row;
}

// Waits until a warp that has copied at the time `last` may copy `bytes` bytes of a layer's weights. Copies at full speed
// hold up what the blocks hand to each other: a step of an H100 takes 5 % less if they are spread over the layer.
__device__ void keep_pace(long long &last, unsigned bytes)
{
#if __CUDA_ARCH__ == 900
    const int bytes_a_cycle = 8;
    while (clock64() - last < bytes / bytes_a_cycle)
        __nanosleep(32);
    last = clock64();
#endif
}

// A place in the ring, as the warp that copies and those that compute count it, each on its own.
struct Place {
    int slot = 0;
    unsigned turn = 0;
    __device__ void next()
    {
        if (++slot == SLOTS)
            slot = 0, ++turn;
    }
};

// All threads make the barriers at once, and wait for each other then.
__device__ void begin_ring()
{
    for (int slot = threadIdx.x; slot < SLOTS; slot += blockDim.x) {
#if __CUDA_ARCH__ >= 900
        begin_barrier(filled(slot), Stored::HAS_GROUPS ? 33 : 1);
#else
        begin_barrier(filled(slot), 32);
#endif
        begin_barrier(emptied(slot), WARPS);  // all that compute
    }
}

template <class Format> __device__ void copy_product(Place &place, long long &last, int layer, int product)
{
    const int lane = threadIdx.x % 32, tiles = own_tiles(product), columns = columns_of(product);
    const char *weights = (const char *)layers()[layer].weights[product];
    for (int tile = 0; tile < tiles; ++tile)
        for (int piece = 0; piece < pieces_of<Format>(product); ++piece, place.next()) {
            const unsigned bytes = steps_in<Format>(product, piece) * step_bytes<Format>();
            const int at = first_tile(product) + tile * gridDim.x;
            char *slot = slot_at(place.slot);
            Barrier *barrier = filled(place.slot);
            wait_for_turn(emptied(place.slot), place.turn - 1);
            if (product != HEAD)
                keep_pace(last, TILE * bytes);
#if __CUDA_ARCH__ >= 900
            if (lane == 0)
                arrive_expecting(barrier, TILE * bytes);
            __syncwarp();
            if (lane < TILE)
                copy_bytes(slot + lane * pitch_of<Format>(),
                           weights + (size_t)row_of(product, at, lane) * steps_of<Format>(product) * step_bytes<Format>() +
                               piece * PIECE_STEPS * step_bytes<Format>(), bytes, barrier);
            const bool has_other_copies = Stored::HAS_GROUPS;
#else
            const bool has_other_copies = true;
            for (int row = 0; row < TILE; ++row) {
                const char *from = weights + (size_t)row_of(product, at, row) * steps_of<Format>(product) * step_bytes<Format>() +
                                   piece * PIECE_STEPS * step_bytes<Format>();
                for (unsigned at = lane * 16; at < bytes; at += 32 * 16)
                    copy_word(slot + row * pitch_of<Format>() + at, from + at);
            }
#endif
            if constexpr (Stored::HAS_GROUPS) {
                if (product != HEAD) {
                    // Copies have 4 bytes at least, so they begin at an even scale.
                    const int row = lane / 4, groups = columns / GROUP;
                    const size_t first = (size_t)row_of(product, at, row) * groups + piece * (PIECE_STEPS * 4 * Stored::VALUES / GROUP);
                    const int count = steps_in<Format>(product, piece) * 4 * Stored::VALUES / GROUP;
                    const unsigned short *scales = layers()[layer].scales[product];
                    for (size_t two = first / 2 + lane % 4; two * 2 < first + count; two += 4)
                        copy_quarter(slot + PIECE_BYTES + row * SCALE_PITCH + (two - first / 2) * 4, scales + 2 * two);
                }
            }
            if (has_other_copies)
                arrive_when_copied(barrier);
        }
}

// All that one warp of a block does.
__device__ void copy_weights()
{
    Place place;
    long long last = 0;
    for (int layer = 0; layer < LAYERS; ++layer)
        for (int product = QKV; product < HEAD; ++product)
            copy_product<Stored>(place, last, layer, product);
    copy_product<Plain>(place, last, 0, HEAD);
}
