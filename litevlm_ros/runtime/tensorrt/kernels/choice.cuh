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
};

__device__ Best best_of_warp(Best best)
{
    for (int distance = 16; distance; distance /= 2) {
        const float other = __shfl_xor_sync(ALL, best.logit, distance);
        best.meet(other, __shfl_xor_sync(ALL, best.token, distance));
    }
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

__device__ void choose_in_block(const Step &step, Place &place, int fresh)
{
    Best best;
    const NormWeights<Plain, HEAD> weights(step.final_norm, fresh);
    const float penalty = step.penalised ? *step.penalty : 1;
    product<Plain, HEAD>(
        place, fresh, [](int, int) -> float2 { return {0, 0}; },
        [&](Inputs<Plain, HEAD> &inputs) {
            await(count(step, DOWN_THERE), blocks_with(DOWN) * LAYERS);
            read_normalised<Plain, HEAD>(inputs, weights, step.eps, fresh,
                                         [&](int token, int at) { return summed(step, token, at); });
        },
        [&](int token, int channel, float sum, float, float2) {
            if (token < 0)
                return;
            const number rounded = to_number(sum);
            step.logits[(size_t)token * ROWS_OF_HEAD + channel] = rounded;
            if (channel < VOCABULARY) {
                if (!is_finite(from_number(rounded)))
                    step.bad[LAYERS] = 1;
                best.meet(weighed(step, channel, from_number(rounded), penalty), channel);
            }
        });
    Best *of_threads = (Best *)room();
    of_threads[thread()] = best;
    sync();
    const int lane = thread() % 32;
    for (int token = thread() / 32; token < fresh; token += WARPS) {
        Best of_token;
        for (int i = lane; i < THREADS / (TOKENS * TILE) * TILE; i += 32) {
            const Best &other = of_threads[i / TILE * TILE * TOKENS + token * TILE + i % TILE];
            of_token.meet(other.logit, other.token);
        }
        of_token = best_of_warp(of_token);
        if (lane == 0) {
            step.best[token * gridDim.x + blockIdx.x] = of_token.logit;
            step.best_at[token * gridDim.x + blockIdx.x] = of_token.token;
        }
    }
}

// Chooses among the blocks' candidates.
__device__ void choose(const Step &step, int fresh)
{
    const int lane = thread() % 32;
    for (int token = thread() / 32; token < fresh; token += WARPS) {
        Best best;
        for (unsigned i = lane; i < gridDim.x; i += 32)
            best.meet(__ldcg(step.best + token * gridDim.x + i), __ldcg(step.best_at + token * gridDim.x + i));
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

