// Turns the pixels of tiles into the vision encoder's input.
//
// pixels.py defines these macros from the model's configuration:
//   PATCH, GRID   edge of a patch in pixels, and of a tile in patches
//   WIDTH         numbers in a row of the patch matrix, at least 3 * PATCH * PATCH
//   MEAN_0, ...   means of the three channels, from 0 to 1, and
//   STD_0, ...    their standard deviations

#define SIZE (PATCH * GRID)

// Writes `output` [tiles * (1 + GRID * GRID), WIDTH] of `tiles`, uint8 [tiles, SIZE, SIZE, 3]. Each row is a patch,
// normalised, in the order channel, row, column; the first one of a tile is zero, as its CLS token has no pixels. Numbers
// beyond a patch are zero. One block for each row.
extern "C" __global__ void patches(const unsigned char *tiles, number *output)
{
    const int tile = blockIdx.x / (1 + GRID * GRID), row = blockIdx.x % (1 + GRID * GRID), patch = row ? row - 1 : 0;
    const unsigned char *corner =
        tiles + ((size_t)tile * SIZE * SIZE + patch / GRID * (PATCH * SIZE) + patch % GRID * PATCH) * 3;
    for (int i = threadIdx.x; i < WIDTH; i += blockDim.x) {
        float value = 0;
        if (row && i < 3 * PATCH * PATCH) {
            const int channel = i / (PATCH * PATCH), y = i / PATCH % PATCH, x = i % PATCH;
            const float mean = channel == 0 ? MEAN_0 : channel == 1 ? MEAN_1 : MEAN_2;
            const float deviation = channel == 0 ? STD_0 : channel == 1 ? STD_1 : STD_2;
            value = (corner[(y * SIZE + x) * 3 + channel] / 255.0f - mean) / deviation;
        }
        output[(size_t)blockIdx.x * WIDTH + i] = to_number(value);
    }
}
