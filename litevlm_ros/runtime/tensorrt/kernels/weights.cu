// Weights on their way from a file to where engines read them.
//
// convert changes the type of a checkpoint's numbers when a model is loaded. The unpack kernels turn packed weights into
// numbers before each run of a block; they read and write words of 16 bytes, and a matrix is a multiple of such words.
//
// weights.py defines the macros KIND_F32, KIND_F16 and KIND_BF16, the types of a checkpoint.

// Reads number `at` from little-endian `bytes`, which a file need not align.
__device__ float load(const unsigned char *bytes, size_t at, int kind)
{
    Bits one;
    if (kind == KIND_F32) {
        const unsigned char *four = bytes + 4 * at;
        one.bits = four[0] | (unsigned)four[1] << 8 | (unsigned)four[2] << 16 | (unsigned)four[3] << 24;
        return one.value;
    }
    const unsigned short half = bytes[2 * at] | (unsigned)bytes[2 * at + 1] << 8;
    return kind == KIND_F16 ? from_half(half) : from_bf16(half);
}

// Writes `value` in the type `kind` and tells whether it is finite there.
__device__ bool store(void *numbers, size_t at, int kind, float value)
{
    if (kind == KIND_F32) {
        ((float *)numbers)[at] = value;
        return is_finite(value);
    }
    const unsigned short half = kind == KIND_F16 ? to_half(value) : to_bf16(value);
    ((unsigned short *)numbers)[at] = half;
    return is_finite(kind == KIND_F16 ? from_half(half) : from_bf16(half));
}

// Converts `count` numbers of a matrix of `columns` columns, from number `first` on, to `target`, whose rows are `stride`
// numbers apart. `source` begins with number `first`. Sets *bad to 1 if a number is not finite in its new type.
extern "C" __global__ void convert(const unsigned char *source, void *target, int *bad, int source_kind,
                                   int target_kind, int first, int count, int columns, int stride)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
        const int at = first + i, row = at / columns;
        const size_t place = (size_t)row * stride + (at - row * columns);
        if (!store(target, place, target_kind, load(source, i, source_kind)))
            *bad = 1;
    }
}

// Returns the two floats as numbers, the first in the lower half.
__device__ unsigned pair(float first, float second)
{
    return to_number(first) | (unsigned)to_number(second) << 16;
}

// Returns 2^-8 times the E4M3 number of a byte: fp16 has a longer fraction, and an exponent whose bias is larger by 8.
__device__ float from_e4m3(unsigned byte)
{
    return from_half((byte & 0x80) << 8 | (byte & 0x7f) << 7);
}

__device__ float from_int8(unsigned byte)
{
    return (signed char)byte;
}

// Returns nibble `at` of `word` as a number from -8 to 7.
__device__ float from_int4(unsigned word, int at)
{
    return (int)(word << (28 - 4 * at)) >> 28;
}

// Unpacks `words` of 16 values each. Each of the fp16 `scales` is that of `words_a_scale` words, times `unit`.
template <float (*from_byte)(unsigned)>
__device__ void unpack_bytes(const uint4 *values, const unsigned short *scales, uint4 *target, int words,
                             int words_a_scale, float unit)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < words; i += gridDim.x * blockDim.x) {
        const float scale = from_half(scales[i / words_a_scale]) * unit;
        const uint4 word = values[i];
        const unsigned packed[4] = {word.x, word.y, word.z, word.w};
        unsigned pairs[8];
        for (int j = 0; j < 8; ++j) {
            const unsigned two = packed[j / 2] >> 16 * (j % 2);
            pairs[j] = pair(from_byte(two & 0xff) * scale, from_byte(two >> 8 & 0xff) * scale);
        }
        target[2 * (size_t)i] = {pairs[0], pairs[1], pairs[2], pairs[3]};
        target[2 * (size_t)i + 1] = {pairs[4], pairs[5], pairs[6], pairs[7]};
    }
}

extern "C" __global__ void unpack_fp8(const uint4 *values, const unsigned short *scales, uint4 *target, int words,
                                      int words_a_scale)
{
    unpack_bytes<from_e4m3>(values, scales, target, words, words_a_scale, 256);
}

extern "C" __global__ void unpack_int8(const uint4 *values, const unsigned short *scales, uint4 *target, int words,
                                       int words_a_scale)
{
    unpack_bytes<from_int8>(values, scales, target, words, words_a_scale, 1);
}

// Unpacks `words` of 32 int4 values each, as unpack_bytes does, of which the first of a byte is in its lower half.
extern "C" __global__ void unpack_int4(const uint4 *values, const unsigned short *scales, uint4 *target, int words,
                                       int words_a_scale)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < words; i += gridDim.x * blockDim.x) {
        const float scale = from_half(scales[i / words_a_scale]);
        const uint4 word = values[i];
        const unsigned packed[4] = {word.x, word.y, word.z, word.w};
        for (int j = 0; j < 4; ++j) {
            unsigned pairs[4];
            for (int k = 0; k < 4; ++k)
                pairs[k] = pair(from_int4(packed[j], 2 * k) * scale, from_int4(packed[j], 2 * k + 1) * scale);
            target[4 * (size_t)i + j] = {pairs[0], pairs[1], pairs[2], pairs[3]};
        }
    }
}
