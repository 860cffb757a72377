// The choice of the next token: each block finds the best of its logits, and the last block the best of all.

// A candidate for the next token: the largest logit, and of equal ones the first.
struct Best {
    float logit = -3.4e38f;
    int token = VOCABULARY;
    __device__ void meet(float other, int there)
    {
        if (other > logit || (other == logit && there < token))
            logit = other, token = there;
    }
    // The better one of two lanes.
    __device__ Best of_lanes(int apart) const
    {
        Best best = *this;
        const float other = __shfl_xor_sync(ALL, logit, apart);
        best.meet(other, __shfl_xor_sync(ALL, token, apart));
        return best;
    }
};

__device__ Best best_of_warp(Best best)
{
    for (int distance = 16; distance; distance /= 2)
        best = best.of_lanes(distance);
    return best;
}

// A logit as it is compared: not at all if its token is not allowed, and less if it is penalised (arXiv 1909.05858).
__device__ float weighed(const Step &step, int token, float logit, float penalty)
{
    if (step.allowed && !(step.allowed[token / 32] >> token % 32 & 1))
        return -3.4e38f;
    if (step.penalised && step.penalised[token / 32] >> token % 32 & 1)
        return logit > 0 ? logit / penalty : logit * penalty;
    return logit;
}

// Logits, and the best of those that a lane has seen.
struct LogitOutput {
    const Step &step;
    const int fresh;
    const float penalty;
    float2 scales;
    Best best[HALVES];
    __device__ void prepare(int tile)
    {
        const int row = TILE * tile + 2 * place_of();
        scales = two_scales<Words>(layers()[0], HEAD, row, row + 1);
    }
    __device__ void take(int tile, const float (&sum)[4])
    {
#pragma unroll
        for (int half = 0; half < HALVES; ++half) {
            const int token = token_of(half), at = TILE * tile + 2 * place_of();
            if (token >= fresh)
                continue;
            const unsigned two = pack(sum[2 * half] * scales.x, sum[2 * half + 1] * scales.y);
            *(unsigned *)(step.logits + (size_t)token * ROWS_OF_HEAD + at) = two;
#pragma unroll
            for (int i = 0; i < 2; ++i)
                if (at + i < VOCABULARY) {
                    const float logit = from_number(number(two >> 16 * i));
                    if (!is_finite(logit))
                        step.bad[LAYERS] = 1;
                    best[half].meet(weighed(step, at + i, logit, penalty), at + i);
                }
        }
    }
};

__device__ void choose_in_block(const Step &step, Place &place, int fresh)
{
    const int lane = thread() % 32, warp = thread() / 32;
    LogitOutput logits = {step, fresh, step.penalised ? *step.penalty : 1};
    product<Words, HEAD>(
        place, 0, fresh, normalised(), NORMAL_PITCH,
        [&] { normalise(step, step.final_norm, 2 * LAYERS, fresh, count(step, DOWN_THERE), BLOCKS * LAYERS); }, logits);
    Best *of_warps = (Best *)room();  // [TOKENS, WARPS]
#pragma unroll
    for (int half = 0; half < HALVES; ++half) {
        Best best = logits.best[half];
        best = best.of_lanes(1).of_lanes(2);
        if (place_of() == 0 && token_of(half) < TOKENS)
            of_warps[token_of(half) * WARPS + warp] = best;
    }
    sync();
    for (int token = warp; token < fresh; token += WARPS) {
        Best best;
        if (lane < WARPS)
            best = of_warps[token * WARPS + lane];
        best = best_of_warp(best);
        if (lane == 0) {
            step.best[token * BLOCKS + blockIdx.x] = best.logit;
            step.best_at[token * BLOCKS + blockIdx.x] = best.token;
        }
    }
}

// Chooses among the blocks' candidates.
__device__ void choose(const Step &step, int fresh)
{
    const int lane = thread() % 32;
    for (int token = thread() / 32; token < fresh; token += WARPS) {
        Best best;
        for (int i = lane; i < BLOCKS; i += 32)
            best.meet(__ldcg(step.best + token * BLOCKS + i), __ldcg(step.best_at + token * BLOCKS + i));
        best = best_of_warp(best);
        if (lane == 0)
            step.next_tokens[token] = best.token < VOCABULARY ? best.token : 0;  // 0 where no logit is a number
    }
    sync();
}

// Makes the token that was found the next step's input, counts one token further, and leaves the token for the host in
// ring[steps % ring_size]: -1 if any flag is set. Runs as one thread.
__device__ void move_on(const Step &step)
{
    const long long token = *(volatile long long *)step.next_tokens;
    int any = 0;
    for (int i = 0; i <= LAYERS; ++i)
        any |= __ldcg(step.bad + i);
    if (step.penalised)
        step.penalised[token / 32] |= 1u << token % 32;
    step.ring[*step.steps % step.ring_size] = any ? -1 : token;
    *step.ids = token;
    *step.positions += 1;
    step.lengths[1] += 1;
    *step.steps += 1;
}

