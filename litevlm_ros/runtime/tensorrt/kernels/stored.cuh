// Weights as they are stored, in words of one row, and as the pairs of numbers that products take.
//
// Each format says how many VALUES a word holds, and unpacks them to VALUES / 2 pairs. `arrange` makes the pairs of what is
// multiplied by them, so that equal columns meet. In formats of tables of words, `value_at` reads one value.

// Pairs are neighbours.
template <int WORDS> __device__ void arrange_neighbours(const uint4 (&words)[WORDS], unsigned (&pairs)[4 * WORDS])
{
#pragma unroll
    for (int i = 0; i < WORDS; ++i)
        pairs[4 * i] = words[i].x, pairs[4 * i + 1] = words[i].y, pairs[4 * i + 2] = words[i].z, pairs[4 * i + 3] = words[i].w;
}

struct Plain {
    typedef uint4 Word;
    static constexpr int VALUES = 8;
    static constexpr bool HAS_SCALES = false, HAS_GROUPS = false;
    static constexpr float UNIT = 1;
    static __device__ void arrange(const uint4 (&words)[1], unsigned (&pairs)[4]) { arrange_neighbours(words, pairs); }
    static __device__ void unpack(const uint4 &word, float, unsigned (&pairs)[4])
    {
        pairs[0] = word.x, pairs[1] = word.y, pairs[2] = word.z, pairs[3] = word.w;
    }
    static __device__ float value_at(const void *values, size_t at) { return from_number(((const number *)values)[at]); }
};

// The rest computes in fp16 only.
#ifndef NUMBER_IS_BF16

// E4M3 numbers, 2^-8 times as large, as weights.cu says: the scales of channels make up for it.
struct Fp8 {
    typedef uint4 Word;
    static constexpr int VALUES = 16;
    static constexpr bool HAS_SCALES = true, HAS_GROUPS = false;
    static constexpr float UNIT = 256;
    static __device__ void arrange(const uint4 (&words)[2], unsigned (&pairs)[8]) { arrange_neighbours(words, pairs); }
    static __device__ void unpack(const uint4 &word, float, unsigned (&pairs)[8])
    {
        const unsigned four[4] = {word.x, word.y, word.z, word.w};
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const unsigned two = __byte_perm(four[i / 2], 0, i % 2 ? 0x3424 : 0x1404);  // each byte in an upper half
            pairs[i] = (two & 0x80008000) | (two & 0x7f007f00) >> 1;
        }
    }
};

// Integers from -128 to 127. Added to 2^10, a byte is the fraction of an fp16 number.
struct Int8 {
    typedef uint4 Word;
    static constexpr int VALUES = 16;
    static constexpr bool HAS_SCALES = true, HAS_GROUPS = false;
    static constexpr float UNIT = 1;
    static __device__ void arrange(const uint4 (&words)[2], unsigned (&pairs)[8]) { arrange_neighbours(words, pairs); }
    static __device__ void unpack(const uint4 &word, float, unsigned (&pairs)[8])
    {
        const unsigned four[4] = {word.x, word.y, word.z, word.w};
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const unsigned two = __byte_perm(four[i / 2] ^ 0x80808080, 0x64646464, i % 2 ? 0x4342 : 0x4140);
            pairs[i] = add_two(two, 0xe480e480);  // -1152 = -(1024 + 128)
        }
    }
    static __device__ float value_at(const void *values, size_t at) { return ((const signed char *)values)[at]; }
};

// Integers from -8 to 7, two a byte, each group of them with a scale of its own.
struct Int4 {
    typedef uint2 Word;  // smaller, so that all warps have a part of a row
    static constexpr int VALUES = 16;
    static constexpr bool HAS_SCALES = false, HAS_GROUPS = true;
    static constexpr float UNIT = 1;
    // The first of eight values is paired with the fifth, and so on, as a word's mask finds them.
    static __device__ void arrange(const uint4 (&words)[2], unsigned (&pairs)[8])
    {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            pairs[4 * i] = __byte_perm(words[i].x, words[i].z, 0x5410);
            pairs[4 * i + 1] = __byte_perm(words[i].x, words[i].z, 0x7632);
            pairs[4 * i + 2] = __byte_perm(words[i].y, words[i].w, 0x5410);
            pairs[4 * i + 3] = __byte_perm(words[i].y, words[i].w, 0x7632);
        }
    }
    static __device__ void unpack(const uint2 &word, unsigned scale, unsigned (&pairs)[8])
    {
        const unsigned eight[2] = {word.x, word.y};
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const unsigned nibbles = eight[i / 4] >> 8 * (i % 4 / 2);
            // 1024 + (n + 8), or 1024 + 16 (n + 8) where the nibble lies 4 bits higher.
            const unsigned two = i % 2 ? (nibbles & 0x00f000f0) ^ 0x64806480 : (nibbles & 0x000f000f) ^ 0x64086408;
            const unsigned value = i % 2 ? multiply_add_two(two, 0x2c002c00, 0xd480d480)  // / 16 - 72
                                         : add_two(two, 0xe408e408);                      // - 1032
            pairs[i] = multiply_two(value, scale);
        }
    }
};

#endif
