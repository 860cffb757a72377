// The check of results that no later kernel looks at.

// Sets *bad if any of `count` numbers is not finite.
extern "C" __global__ void check_finite(const number *numbers, int *bad, int count)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        if (!is_finite(from_number(numbers[i])))
            *bad = 1;
}
