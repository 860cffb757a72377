// A model's weights on their way to the warps that multiply by them, in the order in which they are needed.
//
// Each layer has four products, and behind the last layer is the head. What a block reads of them is known from the first
// layer to the head (share.cuh), and one of its warps copies it to a ring in shared memory, while the others wait for other
// blocks and compute. A slot of the ring holds a tile, or several tiles of those products of which a team has few columns.

// Rows of which a team has few columns are too short for bulk copies, each of which takes an H100 50 ns.
__device__ constexpr bool has_long_rows(int product) { return product != O_PROJ && product != DOWN; }

// The bytes from row to row of a slot, such that lanes read from different banks.
template <class Format> __device__ constexpr int pitch_of(int product)
{
    return (most_steps<Format>(product) * step_bytes<Format>() + 127) / 128 * 128 + step_bytes<Format>();
}

template <class Format> __device__ constexpr int tile_bytes(int product) { return TILE * pitch_of<Format>(product); }

// The same of scales. A row's may begin within a group, and with the scale of the group before.
__device__ constexpr int scale_pitch_of(int product)
{
    return Stored::HAS_GROUPS ? (most_steps<Stored>(product) * STEP_COLUMNS / GROUP + 4) / 2 * 4 : 0;
}

// A slot has room for a tile of numbers as wide as the model, or about as many bytes of other tiles.
__device__ constexpr int whole_tiles(int bytes) { return bytes * ((tile_bytes<Plain>(HEAD) + bytes / 2) / bytes); }

enum {
    PIECE_BYTES = larger(larger(whole_tiles(tile_bytes<Stored>(QKV)), whole_tiles(tile_bytes<Words>(HEAD))),
                         larger(tile_bytes<Stored>(O_PROJ), tile_bytes<Stored>(DOWN)))
};

template <class Format> __device__ constexpr int tiles_in_slot(int product)
{
    return PIECE_BYTES / tile_bytes<Format>(product) < WARPS ? PIECE_BYTES / tile_bytes<Format>(product) : WARPS;
}

__device__ constexpr int scale_bytes(int product) { return tiles_in_slot<Stored>(product) * TILE * scale_pitch_of(product); }

enum {
    SCALE_BYTES = larger(scale_bytes(QKV), larger(scale_bytes(O_PROJ), scale_bytes(DOWN))),
    SLOT_BYTES = PIECE_BYTES + SCALE_BYTES,
    SLOTS = (SHARED_BYTES - OTHER_BYTES) / (SLOT_BYTES + 2 * (int)sizeof(Barrier))
};
static_assert(SLOTS >= 2, "a multiprocessor has too little shared memory for this model");
static_assert(OTHER_BYTES % 16 == 0, "what lies behind is aligned");

// The ring lies behind what room.cuh places.
__device__ char *slot_at(int slot) { return (char *)memory + OTHER_BYTES + slot * SLOT_BYTES; }
__device__ Barrier *filled(int slot) { return (Barrier *)((char *)memory + OTHER_BYTES + SLOTS * SLOT_BYTES) + slot; }
__device__ Barrier *emptied(int slot) { return filled(SLOTS) + slot; }

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
        begin_barrier(filled(slot), 33);  // lanes, and bulk copies
#else
        begin_barrier(filled(slot), 32);
#endif
        begin_barrier(emptied(slot), WARPS);  // all that compute
    }
}

// Copies some rows, from the step `first` on; `row_at` gives the weights' row of each.
template <class Format, class RowAt>
__device__ void copy_rows(Place &place, int layer, int product, int rows, int first, int steps, RowAt row_at)
{
    const int lane = threadIdx.x % 32, columns = columns_of(product), pitch = pitch_of<Format>(product);
    const size_t row_bytes = columns / (4 * Format::VALUES) * step_bytes<Format>();
    const char *weights = (const char *)layers()[layer].weights[product] + first * step_bytes<Format>();
    char *slot = slot_at(place.slot);
    Barrier *barrier = filled(place.slot);
    wait_for_turn(emptied(place.slot), place.turn - 1);
#if __CUDA_ARCH__ >= 900
    const unsigned bytes = steps * step_bytes<Format>();
    if (lane == 0)
        arrive_expecting(barrier, has_long_rows(product) ? rows * bytes : 0);
    __syncwarp();
    if (has_long_rows(product))
        for (int row = lane; row < rows; row += 32)
            copy_bytes(slot + row * pitch, weights + row_at(row) * row_bytes, bytes, barrier);
    else
#endif
    {
        const int words = step_bytes<Format>() / 16;  // of a step, which as many lanes copy
        for (int row = lane / words; row < rows; row += 32 / words) {
            char *to = slot + row * pitch + lane % words * 16;
            const char *from = weights + row_at(row) * row_bytes + lane % words * 16;
            for (int step = 0; step < steps; ++step)
                copy_word(to + step * step_bytes<Format>(), from + step * step_bytes<Format>());
        }
    }
    if constexpr (Format::HAS_GROUPS) {
        // Copies have 4 bytes at least, so they begin at an even scale.
        const int begin = first * STEP_COLUMNS / GROUP, end = ((first + steps) * STEP_COLUMNS + GROUP - 1) / GROUP;
        for (int row = lane / 4; row < rows; row += TILE) {
            const size_t scale = (size_t)row_at(row) * (columns / GROUP), from = (scale + begin) / 2;
            for (size_t two = from + lane % 4; two * 2 < scale + end; two += 4)
                copy_quarter(slot + PIECE_BYTES + row * scale_pitch_of(product) + (two - from) * 4,
                             layers()[layer].scales[product] + 2 * two);
        }
    }
    arrive_when_copied(barrier);
    place.next();
}

template <class Format> __device__ void copy_product(Place &place, int layer, int product, int head)
{
    const int tiles = own_tiles(product), in_slot = tiles_in_slot<Format>(product);
    for (int first = 0; first < tiles; first += in_slot) {
        const int some = tiles - first < in_slot ? tiles - first : in_slot;
        copy_rows<Format>(
            place, layer, product, some * TILE, first_step(product, head), steps_of<Format>(product),
            [=](int row) { return row_of(product, head, tile_at(product, first + row / TILE), row % TILE); });
    }
}

// All that one warp of a block does.
__device__ void copy_weights()
{
    Place place;
    for (int layer = 0; layer < LAYERS; ++layer) {
        for (int head = team(); head < HEADS; head += TEAMS)
            for (int product = QKV; product <= O_PROJ; ++product)
                copy_product<Stored>(place, layer, product, head);
        for (int product = GATE_UP; product <= DOWN; ++product)
            copy_product<Stored>(place, layer, product, 0);
    }
    copy_product<Words>(place, 0, HEAD, 0);
}
