// The shared memory of a block, and what the blocks of a team hand to each other in it.
//
// These places lie one behind the other, and the ring of stream.cuh follows. A team's blocks hand each other three things in
// a layer: a head's queries, keys and values before rotation; what attention mixes of each block's part of the cache; and
// the active channels of the MLP. What lies in the same place is handed only when all of the team have read what was there,
// because they have handed something since, or because all blocks wait for each other between.

enum Handed { QKV_OF_HEAD, PARTS, ACTIVE, HANDED };

__device__ constexpr int larger(int one, int other) { return one > other ? one : other; }

enum {
    MIXED_PITCH = HEAD_DIM + 8,                      // floats, and what lies behind the numbers
    MIX_BYTES = SHARED_BYTES > 128 << 10 ? 36 << 10 : 16 << 10,  // for what warps mix, so that the ring has room
    ROOM_FOR_WARPS = MIX_BYTES / (4 * TOKENS * MIXED_PITCH),
    MIX_WARPS = ROOM_FOR_WARPS < WARPS ? larger(1, ROOM_FOR_WARPS) : WARPS,  // that attend
    PART_PITCH = HEAD_DIM + 4,
    ROW_PITCH = HEAD_DIM + 32,                       // numbers, so that lanes read from different banks
    NORMAL_PITCH = (HIDDEN + 63) / 64 * 64 + 32,
    ACTIVE_PITCH = (MOST_UNITS * STEP_COLUMNS + 63) / 64 * 64 + 32,
    MIX_ROOM = MIX_WARPS * TOKENS * MIXED_PITCH,
    // Places that serve one thing after the other.
    ROOM = larger(MIX_ROOM, TOKENS * larger(3 * HEAD_DIM, ACTIVE_PITCH / 2)),
    PARTS_ROOM = TOKENS * larger(TEAM * PART_PITCH, NORMAL_PITCH / 2),
    ANGLES_AT = ROOM,                                // [TOKENS, HEAD_DIM]: cosines, sines
    COARSE_AT = ANGLES_AT + TOKENS * HEAD_DIM,       // [16]
    PARTS_AT = COARSE_AT + 16,                       // [TEAM, TOKENS, PART_PITCH], and [TOKENS, NORMAL_PITCH] numbers
    ROWS_AT = PARTS_AT + PARTS_ROOM,                 // [4, TOKENS, ROW_PITCH] numbers
    LAYERS_AT = ROWS_AT + 4 * TOKENS * ROW_PITCH / 2,
    HANDED_AT = LAYERS_AT + LAYERS * (int)sizeof(Layer) / 4,
    OTHER_BYTES = (HANDED_AT * 4 + HANDED * (int)sizeof(Barrier) + 127) / 128 * 128
};

extern __shared__ uint4 memory[];
__device__ float *room() { return (float *)memory; }
__device__ float *angles() { return room() + ANGLES_AT; }
__device__ float *coarse() { return room() + COARSE_AT; }
__device__ float *qkv_of_head() { return room(); }  // [TOKENS, 3 * HEAD_DIM]
__device__ float *part_of(int member, int token) { return room() + PARTS_AT + (member * TOKENS + token) * PART_PITCH; }
__device__ number *normalised() { return (number *)(room() + PARTS_AT); }
__device__ number *active() { return (number *)room(); }  // [TOKENS, ACTIVE_PITCH]
__device__ number *rows_at(int which) { return (number *)(room() + ROWS_AT) + which * TOKENS * ROW_PITCH; }
__device__ number *queries() { return rows_at(0); }
__device__ number *new_keys() { return rows_at(1); }
__device__ number *new_values() { return rows_at(2); }
__device__ number *mixed_rows() { return rows_at(3); }
__device__ Layer *layers() { return (Layer *)(room() + LAYERS_AT); }
__device__ Barrier *handed(int what) { return (Barrier *)(room() + HANDED_AT) + what; }

// All threads call it. Nobody hands anything before all blocks of the team have been here.
__device__ void begin_team()
{
#if TEAM > 1
    if (threadIdx.x < HANDED)
        begin_barrier(handed(threadIdx.x), 1);
    __syncthreads();
    meet_team();
#endif
}

// Hands two words to all blocks of the team, this one too.
__device__ void hand(int what, void *at, uint2 words)
{
#if TEAM > 1
#pragma unroll
    for (int to = 0; to < TEAM; ++to)
        send(at, words, handed(what), to);
#else
    *(uint2 *)at = words;
#endif
}

// Waits until all of the team have handed `bytes` bytes together, for the time number `turn`.
__device__ void receive(int what, unsigned bytes, unsigned turn)
{
#if TEAM > 1
    if (threadIdx.x == 0)
        arrive_expecting(handed(what), bytes);
    wait_for_team(handed(what), turn);
#else
    sync();
#endif
}

__device__ uint2 words_of(float first, float second)
{
    Bits one, other;
    one.value = first, other.value = second;
    return {one.bits, other.bits};
}
