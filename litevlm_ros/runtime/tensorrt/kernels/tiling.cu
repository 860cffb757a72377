// Cuts a camera's frame into tiles with the arithmetic of Pillow's bicubic filter, equal to it in every bit.
//
// Pillow resizes in two passes and rounds to 8 bits after each, so there are two kernels: across converts the frame to
// RGB and makes its rows as wide as the tiles together, and down makes the columns as high and writes tiles. A frame
// has one or two targets, the tiles and the thumbnail, and a launch serves both.
//
// tiling.py writes the plan: the structs below, and behind them the weights of vision/bicubic.py.

#define BITS 22  // behind the point of a weight

// Sample i of a frame's component, luma for example, at x and y: frame[base + (y >> down) * row + (x >> across) * step].
struct Component { int base, row, step, down, across; };

// `across` and `down` are the places of the weights, counted in ints from the plan's beginning: the first pixel of each
// new one, then `taps` rows of weights. `middle` is the first pixel between the passes, `tile` the first tile, and
// `columns` the tiles in a row.
struct Target { int width, height, columns, tile, middle, across, across_taps, down, down_taps; };

struct Plan {
    Component components[3];
    int is_yuv, width, height, size, targets;
    Target target[2];
};

__device__ int clip(int value)
{
    return value < 0 ? 0 : value > 255 ? 255 : value;
}

// Writes `middle`, uint8 [height, width, 3] for each target, of a frame. One thread for each pixel of it.
extern "C" __global__ void across(const unsigned char *frame, const Plan *plan, unsigned char *middle)
{
    unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
    for (int number = 0; number < plan->targets; ++number) {
        const Target target = plan->target[number];
        const unsigned count = (unsigned)target.width * plan->height;
        if (at >= count) {
            at -= count;
            continue;
        }
        const int y = at / target.width, x = at % target.width;
        const unsigned char *rows[3];
        int steps[3], shifts[3];
        for (int i = 0; i < 3; ++i) {
            const Component part = plan->components[i];
            rows[i] = frame + part.base + (size_t)(y >> part.down) * part.row;
            steps[i] = part.step;
            shifts[i] = part.across;
        }
        const int *weights = (const int *)plan + target.across + x;
        const int first = *weights, left = plan->width - first;
        const int taps = left < target.across_taps ? left : target.across_taps;
        const bool is_yuv = plan->is_yuv;
        int sums[3] = {1 << (BITS - 1), 1 << (BITS - 1), 1 << (BITS - 1)};
        for (int tap = 0; tap < taps; ++tap) {
            weights += target.width;
            const int weight = *weights;
            int colour[3];
            for (int i = 0; i < 3; ++i)
                colour[i] = rows[i][(size_t)((first + tap) >> shifts[i]) * steps[i]];
            if (is_yuv) {  // BT.601 with limited range, in OpenCV's fixed point of 20 bits
                const int luma = (colour[0] > 16 ? colour[0] - 16 : 0) * 1220542 + (1 << 19);
                const int u = colour[1] - 128, v = colour[2] - 128;
                colour[0] = clip((luma + 1673527 * v) >> 20);
                colour[1] = clip((luma - 852492 * v - 409993 * u) >> 20);
                colour[2] = clip((luma + 2116026 * u) >> 20);
            }
            for (int i = 0; i < 3; ++i)
                sums[i] += weight * colour[i];
        }
        for (int i = 0; i < 3; ++i)
            middle[((size_t)target.middle + at) * 3 + i] = clip(sums[i] >> BITS);
        return;
    }
}

// Writes `tiles`, uint8 [tiles of the frame, size, size, 3]. One thread for each of its numbers.
extern "C" __global__ void down(const Plan *plan, const unsigned char *middle, unsigned char *tiles)
{
    unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
    for (int number = 0; number < plan->targets; ++number) {
        const Target target = plan->target[number];
        const unsigned row = 3 * target.width, count = row * target.height;
        if (at >= count) {
            at -= count;
            continue;
        }
        const int y = at / row, x = at % row, side = 3 * plan->size;
        const int *weights = (const int *)plan + target.down + y;
        const int first = *weights, left = plan->height - first;
        const int taps = left < target.down_taps ? left : target.down_taps;
        const unsigned char *column = middle + (size_t)target.middle * 3 + (size_t)first * row + x;
        int sum = 1 << (BITS - 1);
        for (int tap = 0; tap < taps; ++tap) {
            weights += target.height;
            sum += *weights * column[(size_t)tap * row];
        }
        const int tile = target.tile + y / plan->size * target.columns + x / side;
        tiles[((size_t)tile * plan->size + y % plan->size) * side + x % side] = clip(sum >> BITS);
        return;
    }
}
