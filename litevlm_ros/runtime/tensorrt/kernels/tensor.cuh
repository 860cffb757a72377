// What kernels of whole warps need besides arithmetic: matrix products, copies that run ahead, and signals between blocks.
//
// A lane of a warp has the coordinates group = lane / 4, from 0 to 7, and place = lane % 4. Compute capability 8.0 has all
// of this.

// Returns the thread's index in such a way that the compiler computes what follows from it anew. Otherwise it keeps
// addresses of all parts of a layer at once, and registers spill.
__device__ unsigned thread()
{
    unsigned index = threadIdx.x;
    asm volatile("" : "+r"(index));
    return index;
}

// Adds a product to `sum`: 16 rows of 16 numbers, times 8 columns of 16 numbers. The lane holds two numbers of rows group
// and group + 8 in rows[0] and rows[1], two more in rows[2] and rows[3], and as many of column `group` in low and high.
// Which two of the 16 these are may be chosen freely, as long as rows and columns agree. sum[0] and sum[1] belong to row
// group and columns 2 * place and 2 * place + 1, the other two to row group + 8.
__device__ void multiply(float (&sum)[4], const unsigned (&rows)[4], unsigned low, unsigned high)
{
#ifdef NUMBER_IS_BF16
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
#endif
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(rows[0]), "r"(rows[1]), "r"(rows[2]), "r"(rows[3]), "r"(low), "r"(high));
}

// Returns the lane's part of a transposed matrix of 8 x 8 numbers, of which each lane holds two of row `group`.
__device__ unsigned transpose(unsigned two)
{
    unsigned turned;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(turned) : "r"(two));
    return turned;
}

// --- pairs of numbers

// Returns two floats as numbers, the first in the lower half.
__device__ unsigned pack(float first, float second)
{
    unsigned two;
#ifdef NUMBER_IS_BF16
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(two) : "f"(second), "f"(first));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(two) : "f"(second), "f"(first));
#endif
    return two;
}

// The following are for fp16 only.
__device__ unsigned add_two(unsigned one, unsigned other)
{
    unsigned sum;
    asm("add.f16x2 %0, %1, %2;" : "=r"(sum) : "r"(one), "r"(other));
    return sum;
}

__device__ unsigned multiply_two(unsigned one, unsigned other)
{
    unsigned product;
    asm("mul.f16x2 %0, %1, %2;" : "=r"(product) : "r"(one), "r"(other));
    return product;
}

__device__ unsigned multiply_add_two(unsigned one, unsigned by, unsigned more)
{
    unsigned sum;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(one), "r"(by), "r"(more));
    return sum;
}

// --- barriers in shared memory

typedef unsigned long long Barrier;

__device__ unsigned shared_place(const void *at) { return (unsigned)__cvta_generic_to_shared(at); }

__device__ void begin_barrier(Barrier *barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_place(barrier)), "r"(arrivals) : "memory");
}

__device__ void arrive(Barrier *barrier)
{
    asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(shared_place(barrier)) : "memory");
}

// Waits until the barrier's turn number `turn` is over, of which only the last bit counts.
__device__ void wait_for_turn(Barrier *barrier, unsigned turn)
{
    unsigned over;
    do
#if __CUDA_ARCH__ >= 900
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
#else
        asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
#endif
                     : "=r"(over) : "r"(shared_place(barrier)), "r"(turn & 1) : "memory");
    while (!over);
}

// --- copies to shared memory that run while threads do other things

__device__ void copy_word(void *to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_place(to)), "l"(from) : "memory");
}

__device__ void copy_quarter(void *to, const void *from)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_place(to)), "l"(from) : "memory");
}

// Has the thread's copies arrive at `barrier` when they are done.
__device__ void arrive_when_copied(Barrier *barrier)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_place(barrier)) : "memory");
}

#if __CUDA_ARCH__ >= 900
// Arrives, and lets the barrier wait for so many bytes of `copy_bytes`, too.
__device__ void arrive_expecting(Barrier *barrier, unsigned bytes)
{
    asm volatile("{ .reg .b64 state; mbarrier.arrive.expect_tx.shared.b64 state, [%0], %1; }"
                 ::"r"(shared_place(barrier)), "r"(bytes) : "memory");
}

__device__ void copy_bytes(void *to, const void *from, unsigned bytes, Barrier *barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(shared_place(to)), "l"(from), "r"(bytes), "r"(shared_place(barrier)) : "memory");
}
#endif

// --- between blocks

// Reads what another block has written since the kernel began: not from the multiprocessor's own cache.
template <class Word> __device__ Word read_shared(const Word *at) { return __ldcg(at); }

// Asks for a line of 128 bytes to come nearer.
__device__ void ask_for(const void *line) { asm volatile("prefetch.global.L2 [%0];" ::"l"(line)); }

// Waits for all warps that compute; the one that copies has its own pace.
__device__ void sync() { asm volatile("bar.sync 1, %0;" ::"n"(32 * WARPS) : "memory"); }

// Tells other blocks that what this block has written is there, all of whose warps that compute have met since.
__device__ void signal(unsigned *count)
{
    if (threadIdx.x == 0)
        asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(count) : "memory");
}

// Waits until `goal` signals have come.
__device__ void await_in_thread(const unsigned *count, unsigned goal)
{
    unsigned come;
    do
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(come) : "l"(count) : "memory");
    while (come < goal);
}

// Counts one signal, and returns how many there were before. What those who sent them have written is there.
__device__ unsigned add_signal(unsigned *count)
{
    unsigned before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(count) : "memory");
    return before;
}

// Adds two numbers to what blocks add to at the same time.
__device__ void add_both(float *at, float first, float second)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("red.relaxed.gpu.global.add.v2.f32 [%0], {%1, %2};" ::"l"(at), "f"(first), "f"(second) : "memory");
#else
    asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(at), "f"(first) : "memory");
    asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(at + 1), "f"(second) : "memory");
#endif
}

// --- between the blocks of a team, a cluster, each of which reaches the shared memory of the others

#if TEAM > 1
__device__ unsigned shared_place_of(const void *at, unsigned member)
{
    unsigned place;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(place) : "r"(shared_place(at)), "r"(member));
    return place;
}

// Stores two words in the shared memory of a member, whose barrier waits for these 8 bytes.
__device__ void send(void *at, uint2 words, Barrier *barrier, unsigned member)
{
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], {%1, %2}, [%3];"
                 ::"r"(shared_place_of(at, member)), "r"(words.x), "r"(words.y), "r"(shared_place_of(barrier, member)) : "memory");
}

// Waits as `wait_for_turn` does, for what members have sent.
__device__ void wait_for_team(Barrier *barrier, unsigned turn)
{
    unsigned over;
    do
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(over) : "r"(shared_place(barrier)), "r"(turn & 1) : "memory");
    while (!over);
}

// Waits for all threads of the team.
__device__ void meet_team()
{
    asm volatile("barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;" ::: "memory");
}
#endif
