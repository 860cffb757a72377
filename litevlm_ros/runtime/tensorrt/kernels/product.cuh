// A block's share of the product of all tokens' rows with a matrix of weights, from the ring of stream.cuh.
//
// The 16 rows of a product of tensor.cuh are tokens, and its 8 columns are a tile of weights. Each warp multiplies its own
// columns of the weights, and the warps' sums are then added in shared memory.

// What is multiplied by weights: the numbers of this warp's columns, of tokens group and group + 8.
template <class Format, int PRODUCT> struct Inputs {
    static constexpr int PIECES = pieces_of<Format>(PRODUCT), OF_PIECE = (PIECE_STEPS + WARPS - 1) / WARPS;  // steps of a warp
    static constexpr int STEPS = PIECES * OF_PIECE, VALUES = Format::VALUES;
    unsigned pairs[STEPS][HALVES][VALUES / 2];

    // Sets the numbers of a step.
    __device__ void set(int step, int half, const uint4 (&words)[VALUES / 8]) { Format::arrange(words, pairs[step][half]); }

    // A warp's step in its piece.
    static __device__ int place(int step) { return thread() / 32 * OF_PIECE + step % OF_PIECE; }

    // Tells whether this warp has a step.
    static __device__ bool has(int step)
    {
        const int steps = steps_in<Format>(PRODUCT, step / OF_PIECE);
        return steps >= WARPS * OF_PIECE || place(step) < steps;
    }

    // The column of a lane's first number of a step.
    static __device__ int column(int step)
    {
        return ((step / OF_PIECE * PIECE_STEPS + place(step)) * 4 + thread() % 4) * VALUES;
    }
};

__device__ int token_of(int half) { return thread() % 32 / 4 + 8 * half; }

// The norm's weights of this warp's columns, which are read while the block waits.
template <class Format, int PRODUCT> struct NormWeights {
    typedef Inputs<Format, PRODUCT> Of;
    float4 fours[Of::STEPS][Of::VALUES / 4];

    __device__ NormWeights(const float *weights, int fresh)
    {
#pragma unroll
        for (int step = 0; step < Of::STEPS; ++step)
#pragma unroll
            for (int i = 0; i < Of::VALUES / 4; ++i) {
                fours[step][i] = {0, 0, 0, 0};
                if (Of::has(step) && token_of(0) < fresh)
                    fours[step][i] = ((const float4 *)(weights + Of::column(step)))[i];
            }
    }
};

// Normalises rows: row / sqrt(mean(row^2) + eps) * weight. `read(token, column)` returns four numbers.
template <class Format, int PRODUCT, class Read>
__device__ void read_normalised(Inputs<Format, PRODUCT> &inputs, const NormWeights<Format, PRODUCT> &weights, float eps,
                                int fresh, Read read)
{
    typedef Inputs<Format, PRODUCT> Of;
    const int lane = thread() % 32, warp = thread() / 32;
    float4 sums[Of::STEPS][HALVES][Of::VALUES / 4];
#pragma unroll
    for (int step = 0; step < Of::STEPS; ++step)
#pragma unroll
        for (int half = 0; half < HALVES; ++half)
#pragma unroll
            for (int i = 0; i < Of::VALUES / 4; ++i) {
                sums[step][half][i] = {0, 0, 0, 0};
                if (Of::has(step) && token_of(half) < fresh)
                    sums[step][half][i] = read(token_of(half), Of::column(step) + 4 * i);
            }
#pragma unroll
    for (int half = 0; half < HALVES; ++half) {
        float squares = 0;
#pragma unroll
        for (int step = 0; step < Of::STEPS; ++step)
#pragma unroll
            for (int i = 0; i < Of::VALUES / 4; ++i) {
                const float4 four = sums[step][half][i];
                squares += four.x * four.x + four.y * four.y + (four.z * four.z + four.w * four.w);
            }
        squares = sum_of_four(squares);
        if (lane % 4 == 0 && token_of(half) < TOKENS)
            squares_of_warps()[token_of(half) * 16 + warp] = squares;
    }
    sync();
#pragma unroll
    for (int half = 0; half < HALVES; ++half) {
        float all = 0;
        if (token_of(half) < TOKENS)
#pragma unroll
            for (int i = 0; i < WARPS; ++i)
                all += squares_of_warps()[token_of(half) * 16 + i];
        const float scale = rsqrtf(all * (1.f / HIDDEN) + eps);
#pragma unroll
        for (int step = 0; step < Of::STEPS; ++step) {
            uint4 words[Of::VALUES / 8];
#pragma unroll
            for (int i = 0; i < Of::VALUES / 8; ++i) {
                const float4 one = sums[step][half][2 * i], by = weights.fours[step][2 * i];
                const float4 two = sums[step][half][2 * i + 1], also_by = weights.fours[step][2 * i + 1];
                words[i] = {pack(one.x * scale * by.x, one.y * scale * by.y), pack(one.z * scale * by.z, one.w * scale * by.w),
                            pack(two.x * scale * also_by.x, two.y * scale * also_by.y),
                            pack(two.z * scale * also_by.z, two.w * scale * also_by.w)};
            }
            inputs.set(step, half, words);
        }
    }
}

// The tile, token and channel of an output, by its index among a block's.
template <int PRODUCT> struct Channel {
    static constexpr int OF_TILE = PRODUCT == GATE_UP ? 4 : TILE;
    int tile, token, channel;
    __device__ Channel(int index) : tile(index / (TOKENS * OF_TILE)), token(index / OF_TILE % TOKENS), channel(index % OF_TILE) {}
    __device__ int row(int first) const { return OF_TILE * (first_tile(PRODUCT) + (first + tile) * (int)gridDim.x) + channel; }
};

// Returns the scale of a word of a piece, twice. The copy of a row's scales may begin with the one before.
template <class Format, int PRODUCT> __device__ unsigned scale_of_word(const char *scales, int row, int piece, int word)
{
    const int of_piece = PIECE_STEPS * 4 * Format::VALUES / GROUP, groups = columns_of(PRODUCT) / GROUP;
    const unsigned scale = ((const unsigned short *)scales)[(row * groups + piece * of_piece) % 2 + word * Format::VALUES / GROUP];
    return scale | scale << 16;
}

// A block's share of a product. `factors(token, row)` is called first, so that what it reads is there when it is needed,
// then `prepare(inputs)`, and at last `output(token, row, sum, up, factors)`; `up` belongs to GATE_UP only. All lanes of a
// warp call `output` at once; those without an output have a token of -1.
template <class Format, int PRODUCT, class Factors, class Prepare, class Output>
__device__ void product(Place &place, int fresh, Factors factors, Prepare prepare, Output output)
{
    typedef Inputs<Format, PRODUCT> Of;
    typedef Channel<PRODUCT> Out;
    // Pieces that are multiplied at once hide each other's latency: some tiles, or some pieces of one tile.
    constexpr int AT_ONCE = TOKENS > 1 ? 2 : 4, TILES = Of::PIECES == 1 ? AT_ONCE : 1;
    constexpr int PITCH = WARPS * TOKENS * TILE + TILE;
    constexpr int WRITERS = THREADS / (TOKENS * TILE) * (TOKENS * TILE);  // so that a thread has always the same token
    static_assert(WRITERS > 0, "a block has too few warps for so many tokens");
    const int tiles = own_tiles(PRODUCT);
    float2 early = {0, 0};
    {
        const Out out(thread());
        if (thread() < WRITERS && out.tile < tiles && out.token < fresh)
            early = factors(out.token, out.row(0));
    }
    Of inputs;
    prepare(inputs);
    const unsigned lane = thread() % 32, warp = thread() / 32;
    const unsigned own_words = lane / 4 * pitch_of<Format>() + lane % 4 * sizeof(typename Format::Word) +
                               warp * Of::OF_PIECE * step_bytes<Format>();
    for (int first = 0; first < tiles; first += ROOM_TILES) {
        const int some = tiles - first < ROOM_TILES ? tiles - first : ROOM_TILES;
        float *to = room() + lane / 4 * TILE + lane % 4 * 2 + warp * TOKENS * TILE;
        for (int tile = 0; tile < some; tile += TILES, to += TILES * PITCH) {
            float sums[AT_ONCE][4] = {};  // of each tile, or of every AT_ONCE-th piece
#pragma unroll
            for (int base = 0; base < TILES * Of::PIECES; base += AT_ONCE) {
                typename Format::Word words[AT_ONCE][Of::OF_PIECE];
                unsigned scales[AT_ONCE][Of::OF_PIECE];
#pragma unroll
                for (int i = 0; i < AT_ONCE; ++i) {
                    const int at = base + i, piece = at % Of::PIECES;
                    if (at >= TILES * Of::PIECES || (TILES > 1 && tile + i >= some))
                        continue;
                    wait_for_turn(filled(place.slot), place.turn);
                    const char *slot = slot_at(place.slot) + own_words;
#pragma unroll
                    for (int j = 0; j < Of::OF_PIECE; ++j) {
                        const int step = piece * Of::OF_PIECE + j;
                        words[i][j] = {};
                        scales[i][j] = 0;
                        if (!Of::has(step))
                            continue;
                        words[i][j] = *(const typename Format::Word *)(slot + j * step_bytes<Format>());
                        if constexpr (Format::HAS_GROUPS)
                            scales[i][j] = scale_of_word<Format, PRODUCT>(
                                slot_at(place.slot) + PIECE_BYTES + lane / 4 * SCALE_PITCH,
                                row_of(PRODUCT, first_tile(PRODUCT) + (first + tile + at / Of::PIECES) * gridDim.x, lane / 4),
                                piece, Of::place(step) * 4 + lane % 4);
                    }
                    __syncwarp();
                    if (lane == 0)
                        arrive(emptied(place.slot));
                    place.next();
                }
#pragma unroll
                for (int i = 0; i < AT_ONCE; ++i) {
                    const int at = base + i;
                    if (at >= TILES * Of::PIECES || (TILES > 1 && tile + i >= some))
                        continue;
#pragma unroll
                    for (int j = 0; j < Of::OF_PIECE; ++j) {
                        unsigned pairs[Of::VALUES / 2];
                        Format::unpack(words[i][j], scales[i][j], pairs);
                        const auto &one = inputs.pairs[at % Of::PIECES * Of::OF_PIECE + j];
#pragma unroll
                        for (int k = 0; k < Of::VALUES / 2; k += 2) {
                            const unsigned rows[4] = {one[0][k], HALVES > 1 ? one[HALVES - 1][k] : 0, one[0][k + 1],
                                                      HALVES > 1 ? one[HALVES - 1][k + 1] : 0};
                            multiply(sums[i], rows, pairs[k], pairs[k + 1]);
                        }
                    }
                }
            }
            if (TILES == 1)
#pragma unroll
                for (int i = 1; i < AT_ONCE; ++i)
#pragma unroll
                    for (int k = 0; k < 4; ++k)
                        sums[0][k] += sums[i][k];
#pragma unroll
            for (int i = 0; i < TILES; ++i)
#pragma unroll
                for (int half = 0; half < HALVES; ++half)
                    if ((TILES == 1 || tile + i < some) && lane / 4 + 8 * half < fresh)
                        *(float2 *)(to + i * PITCH + half * 8 * TILE) = {sums[i][2 * half], sums[i][2 * half + 1]};
        }
        sync();
        for (int begin = 0; begin < some * TOKENS * Out::OF_TILE && thread() < WRITERS; begin += WRITERS) {
            const int i = begin + thread();
            const Out out(i);
            const bool has_one = i < some * TOKENS * Out::OF_TILE && out.token < fresh;
            float sum = 0, up = 0;
            float2 with = early;
            const int row = out.row(first);
            if (has_one) {
                const float *from = room() + out.tile * PITCH + out.token * TILE + out.channel;
#pragma unroll
                for (int j = 0; j < WARPS; ++j) {
                    sum += from[j * TOKENS * TILE];
                    if (PRODUCT == GATE_UP)
                        up += from[j * TOKENS * TILE + 4];
                }
                if (first || begin)
                    with = factors(out.token, row);
            }
            output(has_one ? out.token : -1, row, sum, up, with);
        }
        sync();  // before the room is used again
    }
}

