// A block's part of a product: rows of numbers in shared memory times the tiles of weights in the ring of stream.cuh.
//
// Each warp takes whole tiles. The rows of a product of tensor.cuh are tokens, and its columns are a tile's 8 rows of
// weights: sum[0] and sum[1] of a lane belong to token `group` and channels 2 * place and 2 * place + 1 of the tile, the
// other two to token group + 8.

__device__ int token_of(int half) { return thread() % 32 / 4 + 8 * half; }
__device__ int place_of() { return thread() % 4; }

// Returns the scale of a word, twice. `row` is the weights' row, whose copied scales are those from step `first` on, and may
// begin with the one before.
template <int PRODUCT> __device__ unsigned scale_of_word(const char *scales, int row, int first, int word)
{
    const int groups = columns_of(PRODUCT) / GROUP, begin = first * STEP_COLUMNS / GROUP;
    const int at = (word * Stored::VALUES + first * STEP_COLUMNS) / GROUP - begin;
    const unsigned scale = ((const unsigned short *)scales)[(row * groups + begin) % 2 + at];
    return scale | scale << 16;
}

// Multiplies `inputs`, whose rows lie `pitch` numbers apart, by the tile at `weights`.
template <class Format, int PRODUCT>
__device__ void multiply_tile(float (&sum)[4], const char *weights, const char *scales, const number *inputs, int pitch,
                              int head, int tile, int fresh)
{
    constexpr int AT_ONCE = 4;  // steps, whose loads hide each other's latency
    const int lane = thread() % 32, steps = steps_of<Format>(PRODUCT);
    float sums[AT_ONCE][4] = {};
    weights += lane / 4 * pitch_of<Format>(PRODUCT) + lane % 4 * sizeof(typename Format::Word);
    inputs += token_of(0) * pitch + lane % 4 * Format::VALUES;
    for (int base = 0; base < steps; base += AT_ONCE) {
        typename Format::Word words[AT_ONCE];
        uint4 numbers[AT_ONCE][HALVES][Format::VALUES / 8];
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) {
            words[i] = {};
            if (base + i < steps)
                words[i] = *(const typename Format::Word *)(weights + (base + i) * step_bytes<Format>());
#pragma unroll
            for (int half = 0; half < HALVES; ++half)
#pragma unroll
                for (int j = 0; j < Format::VALUES / 8; ++j) {
                    numbers[i][half][j] = {0, 0, 0, 0};
                    if (base + i < steps && token_of(half) < fresh)
                        numbers[i][half][j] =
                            *(const uint4 *)(inputs + 8 * half * pitch + (base + i) * 4 * Format::VALUES + 8 * j);
                }
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) {
            unsigned pairs[HALVES][Format::VALUES / 2], columns[Format::VALUES / 2], scale = 0;
#pragma unroll
            for (int half = 0; half < HALVES; ++half)
                Format::arrange(numbers[i][half], pairs[half]);
            if constexpr (Format::HAS_GROUPS)
                if (base + i < steps)
                    scale = scale_of_word<PRODUCT>(scales + lane / 4 * scale_pitch_of(PRODUCT),
                                                   row_of(PRODUCT, head, tile, lane / 4), first_step(PRODUCT, head),
                                                   4 * (base + i) + lane % 4);
            Format::unpack(words[i], scale, columns);
#pragma unroll
            for (int j = 0; j < Format::VALUES / 2; j += 2) {
                const unsigned rows[4] = {pairs[0][j], HALVES > 1 ? pairs[HALVES - 1][j] : 0, pairs[0][j + 1],
                                          HALVES > 1 ? pairs[HALVES - 1][j + 1] : 0};
                multiply(sums[i], rows, columns[j], columns[j + 1]);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i)
#pragma unroll
        for (int k = 0; k < 4; ++k)
            sum[k] += sums[i][k];
}

// A warp has read its part of a slot, or has none. Those without a part wait for a slot and release it, too. Otherwise a slow
// one could miss that a slot was filled, because it is filled once more.
__device__ void release(const Place &place)
{
    __syncwarp();
    if (thread() % 32 == 0)
        arrive(emptied(place.slot));
}

// Gives each tile's product to `output.take(tile, sum)`, behind `output.prepare(tile)`, which reads what that needs. The
// first is prepared before `wait()`, which returns when all inputs are there. All lanes of a warp take at once.
template <class Format, int PRODUCT, class Wait, class Output>
__device__ void product(Place &place, int head, int fresh, const number *inputs, int pitch, Wait wait, Output &output)
{
    constexpr int IN_SLOT = tiles_in_slot<Format>(PRODUCT);
    const int warp = thread() / 32, tiles = own_tiles(PRODUCT);
    if (warp < tiles)
        output.prepare(tile_at(PRODUCT, warp));
    wait();
    for (int first = 0, own = warp; first < tiles; first += IN_SLOT) {
        const int some = tiles - first < IN_SLOT ? tiles - first : IN_SLOT;
        wait_for_turn(filled(place.slot), place.turn);
        if (own < some) {
            const int tile = tile_at(PRODUCT, first + own);
            if (first)
                output.prepare(tile);
            const char *slot = slot_at(place.slot);
            float sum[4] = {};
            multiply_tile<Format, PRODUCT>(sum, slot + own * tile_bytes<Format>(PRODUCT),
                                           slot + PIECE_BYTES + own * TILE * scale_pitch_of(PRODUCT), inputs, pitch, head,
                                           tile, fresh);
            release(place);
            output.take(tile, sum);
        } else
            release(place);
        own = own < IN_SLOT ? own + WARPS - IN_SLOT : own - IN_SLOT;
        place.next();
    }
}
