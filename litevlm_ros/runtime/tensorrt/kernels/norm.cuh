// Rows of the sum over the layers, normalised: row / sqrt(mean(row^2) + eps) * weight, as numbers in shared memory.

// Returns a number C such that (part + C) - C rounds parts of a sum to multiples of one power of two, by the sum of the
// squares of the sum so far. All sums of those are exact, so the order in which blocks add does not matter. They are
// rounded by 2^-22 of the norm of the sum, or less.
__device__ float coarse_of(float squares)
{
    Bits norm;
    norm.value = sqrtf(squares);
    norm.bits &= 0x7f800000;
    return norm.value > 0 ? 3 * norm.value : 3 * 1.17549435e-38f;
}

__device__ float rounded(float part, float coarse) { return (part + coarse) - coarse; }

__device__ float square(float4 four)
{
    return four.x * four.x + four.y * four.y + (four.z * four.z + four.w * four.w);
}

// Waits for `goal` signals, and normalises the sum of a turn. Each warp takes whole rows.
__device__ void normalise(const Step &step, const float *weights, int turn, int fresh, const unsigned *count,
                          unsigned goal)
{
    constexpr int FOURS = (HIDDEN / 4 + 31) / 32;  // of a lane
    const int lane = thread() % 32, warp = thread() / 32;
    float4 by[FOURS];
#pragma unroll
    for (int i = 0; i < FOURS; ++i) {
        by[i] = {0, 0, 0, 0};
        if (warp < fresh && 128 * i + 4 * lane < HIDDEN)
            by[i] = *(const float4 *)(weights + 128 * i + 4 * lane);
    }
    if (TOKENS > 1)
        await(count, goal);
    else if (warp == 0)
        await_in_warp(count, goal);
    for (int token = warp; token < fresh; token += WARPS) {
        float4 fours[FOURS];
        float squares = 0;
#pragma unroll
        for (int i = 0; i < FOURS; ++i) {
            fours[i] = {0, 0, 0, 0};
            if (128 * i + 4 * lane < HIDDEN)
                fours[i] = four_of_sum(step, turn, token, 128 * i + 4 * lane);
        }
#pragma unroll
        for (int i = 0; i < FOURS; ++i)
            squares += square(fours[i]);
        squares = sum_of_warp(squares);
        const float scale = rsqrtf(squares * (1.f / HIDDEN) + step.eps);
        if (lane == 0)
            coarse()[token] = coarse_of(squares);
#pragma unroll
        for (int i = 0; i < FOURS; ++i)
            if (128 * i + 4 * lane < HIDDEN)
                *(uint2 *)(normalised() + token * NORMAL_PITCH + 128 * i + 4 * lane) = {
                    pack(fours[i].x * scale * by[i].x, fours[i].y * scale * by[i].y),
                    pack(fours[i].z * scale * by[i].z, fours[i].w * scale * by[i].w)};
    }
    sync();
}
