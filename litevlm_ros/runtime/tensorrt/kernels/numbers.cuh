// Numbers of 16 bits as floats. Every source of this folder begins with this one.
//
// `number` is the type in which a model's weights and activations are held: fp16 with NUMBER_IS_HALF, bf16 with
// NUMBER_IS_BF16 (fp16 if neither is defined). CUDA's own headers are not used, because NVRTC alone does not have them.
// __CUDA_ARCH__ is defined on a GPU only: tests compile the same sources for the host.

union Bits { unsigned bits; float value; };

__device__ float from_half(unsigned short half)
{
#ifdef __CUDA_ARCH__
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
#else
    Bits one;
    if ((half & 0x7c00) == 0x7c00) {  // infinite or not a number
        one.bits = (half & 0x8000u) << 16 | 0x7f800000 | (half & 0x3ffu) << 13;
        return one.value;
    }
    one.bits = (half & 0x7fffu) << 13;
    one.value *= 5.192296858534828e33f;  // 2^112, between the exponents' biases
    one.bits |= (half & 0x8000u) << 16;
    return one.value;
#endif
}

__device__ unsigned short to_half(float value)
{
#ifdef __CUDA_ARCH__
    unsigned short half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
#else
    Bits one;
    one.value = value;
    const unsigned sign = one.bits >> 16 & 0x8000, size = one.bits & 0x7fffffff;
    if (size >= 0x7f800000)
        return sign | (size > 0x7f800000 ? 0x7fff : 0x7c00);
    if (size >= 0x477ff000)  // rounds beyond 65504
        return sign | 0x7c00;
    if (size < 0x38800000) {  // below fp16's smallest normal number: the float adder rounds
        one.bits = size;
        one.value += 0.5f;
        return sign | (one.bits - 0x3f000000);
    }
    const unsigned odd = size >> 13 & 1;
    return sign | (size - 0x38000000 + 0xfff + odd) >> 13;
#endif
}

__device__ float from_bf16(unsigned short half)
{
    Bits one;
    one.bits = (unsigned)half << 16;
    return one.value;
}

__device__ unsigned short to_bf16(float value)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    unsigned short half;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
#else
    Bits one;
    one.value = value;
    if ((one.bits & 0x7fffffff) > 0x7f800000)
        return one.bits >> 16 | 0x40;  // not a number, and rounding must not make it infinite
    return (one.bits + 0x7fff + (one.bits >> 16 & 1)) >> 16;
#endif
}

#ifdef NUMBER_IS_BF16
#define from_number from_bf16
#define to_number to_bf16
#else
#define from_number from_half
#define to_number to_half
#endif

typedef unsigned short number;

#define ALL 0xffffffffu  // all lanes of a warp

// Returns the sum of the values of all lanes of a warp, to each of them.
__device__ float sum_of_warp(float value)
{
    for (int distance = 16; distance; distance /= 2)
        value += __shfl_xor_sync(ALL, value, distance);
    return value;
}

// `wide` is the type of biases, engines.block_graph.wide_type.
#ifdef NUMBER_IS_BF16
typedef number wide;
__device__ float from_wide(wide value) { return from_number(value); }
#else
typedef float wide;
__device__ float from_wide(wide value) { return value; }
#endif

// Tells whether a float is neither infinite nor NaN. It compares bits, so no fast-math option makes it a constant.
__device__ bool is_finite(float value)
{
    Bits one;
    one.value = value;
    return (one.bits & 0x7f800000) != 0x7f800000;
}

// Returns `value` / (1 + exp(-`slope`)). Exact functions would take longer than a kernel waits for its numbers, and these are
// off by far less than a rounding to 16 bits.
__device__ float gated(float value, float slope) { return __fdividef(value, 1 + __expf(-slope)); }

// As many values as a Word holds numbers: 8 for uint4, 2 for unsigned. A thread moves them a Word at a time, and their
// addresses are aligned to a Word.
template <class Word, class Value> union Group {
    Word words[sizeof(Value) / sizeof(number)];
    Value each[sizeof(Word) / sizeof(number)];
};

template <class Word, class Value> __device__ Group<Word, Value> read_group(const Value *from)
{
    Group<Word, Value> group;
    for (size_t i = 0; i < sizeof(Value) / sizeof(number); ++i)
        group.words[i] = ((const Word *)from)[i];
    return group;
}

template <class Word, class Value> __device__ void write_group(Value *to, const Group<Word, Value> &group)
{
    for (size_t i = 0; i < sizeof(Value) / sizeof(number); ++i)
        ((Word *)to)[i] = group.words[i];
}
