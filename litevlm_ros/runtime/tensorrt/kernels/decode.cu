// A decode step of up to TOKENS tokens as one kernel: from the tokens' ids to the next tokens.
//
// All blocks run at the same time, one on a multiprocessor, from the first layer to the head. They are divided into teams
// (share.cuh). A layer has two parts, attention and the MLP. Before each of them the blocks wait until all teams have added
// the part before to the sum; in it, the blocks of a team hand each other what they need (room.cuh). While they wait, the
// weights of the parts to come are on their way (stream.cuh).
//
// decode.py defines these macros:
//   HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INNER, LAYERS, VOCABULARY, ROWS_OF_HEAD   the model's shapes
//   QK_NORM              defined if the queries and keys of each head are normalised
//   TOKENS               the most new tokens: 1, or up to 16
//   FORMAT, GROUP        how the layers' weights are stored (stored.cuh), and the inputs that share a scale of Int4
//   WORD_FORMAT          how the embedding and the head are stored
//   TEAMS, TEAM          the teams of blocks, and the blocks of a team
//   WARPS                warps of a block that compute; one more copies weights
//   SHARED_BYTES         shared memory of a block

// Attention by one head.
__device__ void attend(const Step &step, Place &place, int layer, int head, unsigned time, int fresh, int valid)
{
    const Layer &of = layers()[layer];
    const Chunks chunks = {valid - fresh, fresh};
    const int warp = thread() / 32, turn = 2 * layer;
    QkvOutput qkv = {of, head, fresh};
    product<Stored, QKV>(
        place, head, fresh, normalised(), NORMAL_PITCH,
        [&] { normalise(step, of.input_norm, turn, fresh, count(step, DOWN_THERE), BLOCKS * layer); }, qkv);
    Chunk chunk;
    if (warp < chunks.warps() && chunks.of_warp(warp) < chunks.old())
        read_cached(chunk, of, head, chunks, chunks.of_warp(warp));
    const HeadNorms norms(of, step.eps);  // read while the others of the team are still computing
    receive(QKV_OF_HEAD, fresh * 3 * HEAD_DIM * 4, time);
    rotate_and_append(of, chunks, head, norms, step.bad + layer);
    if (warp < chunks.warps()) {
        Mixed mixed;
        mix(mixed, chunk, of, chunks, head);
        leave(mixed);
    }
    sync();
    hand_part(chunks);
    SumOutput<O_PROJ> sum = {step, of, turn, fresh, head == 0};
    product<Stored, O_PROJ>(
        place, head, fresh, mixed_rows(), ROW_PITCH,
        [&] {
            receive(PARTS, TEAM * fresh * (HEAD_DIM + 2) * 4, time);
            merge_parts(chunks);
            sync();
        },
        sum);
    sync();
}

// The MLP. `goal` signals say that the sum is there.
__device__ void apply_mlp(const Step &step, Place &place, int layer, int fresh, unsigned goal)
{
    const Layer &of = layers()[layer];
    const int turn = 2 * layer + 1;
    ActiveOutput gate_up = {of, fresh};
    product<Stored, GATE_UP>(
        place, 0, fresh, normalised(), NORMAL_PITCH,
        [&] { normalise(step, of.post_norm, turn, fresh, count(step, O_THERE), goal); }, gate_up);
    SumOutput<DOWN> sum = {step, of, turn, fresh, team() == 0};
    product<Stored, DOWN>(
        place, 0, fresh, active(), ACTIVE_PITCH,
        [&] { receive(ACTIVE, fresh * own_units() * STEP_COLUMNS * 2, layer); }, sum);
    sync();
}

// All that the other warps do.
__device__ void compute(const Step &step)
{
    const int fresh = step.lengths[0], valid = step.lengths[1];
    for (int i = thread(); i < TOKENS * HALF; i += THREADS) {
        const int token = i / HALF, at = i % HALF;
        if (token < fresh) {
            const float angle = (float)step.positions[token] * step.frequencies[at];
            angles()[token * HEAD_DIM + at] = cosf(angle);
            angles()[token * HEAD_DIM + HALF + at] = sinf(angle);
        }
    }
    sync();
    Place place;
    unsigned heads = 0;
    const unsigned attending = TEAM * (HEADS < TEAMS ? HEADS : TEAMS);  // blocks
    ask_for_layer(0, valid - fresh);
    for (int layer = 0; layer < LAYERS; ++layer) {
        ask_for_layer(layer + 1, valid - fresh);
        for (int head = team(); head < HEADS; head += TEAMS, ++heads)
            attend(step, place, layer, head, heads, fresh, valid);
        if (team() < HEADS)
            signal(count(step, O_THERE));
        apply_mlp(step, place, layer, fresh, attending * (layer + 1));
        signal(count(step, DOWN_THERE));
    }
    choose_in_block(step, place, fresh);
    __shared__ bool is_last;
    sync();
    if (thread() == 0)
        is_last = add_signal(count(step, BEST_THERE)) == BLOCKS - 1;
    sync();
    if (!is_last)
        return;
    choose(step, fresh);
    if (thread() < COUNTS)
        *count(step, thread()) = 0;
    for (int i = thread(); i < fresh * HIDDEN; i += THREADS)
        *sum_of(step, 1, 0, i) = 0;
    if (thread() == 0 && step.ring)
        move_on(step);
}

#if TEAM > 1
#define IN_CLUSTERS __cluster_dims__(TEAM, 1, 1)
#else
#define IN_CLUSTERS
#endif

extern "C" __global__ void IN_CLUSTERS __launch_bounds__(THREADS + 32, 1) decode(const __grid_constant__ Step step)
{
    for (int i = threadIdx.x; i < LAYERS * (int)(sizeof(Layer) / 8); i += THREADS + 32)
        ((unsigned long long *)layers())[i] = ((const unsigned long long *)step.layers)[i];
    begin_ring();
    begin_team();
    __syncthreads();
    if (threadIdx.x >= THREADS)
        copy_weights();
    else
        compute(step);
}
