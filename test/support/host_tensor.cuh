// What tensor.cuh defines, for the host: the same functions, on a block of host_cuda.h.

__device__ unsigned thread() { return threadIdx.x; }

// A lane's part of both factors of `multiply`, as mma.m16n8k16 lays it out: columns 2 * place and 2 * place + 1 of 16, and
// those 8 further.
struct Factors { unsigned rows[4], columns[2]; };

__device__ float number_of(unsigned two, int half) { return from_number(number(two >> 16 * half)); }

__device__ void multiply(float (&sum)[4], const unsigned (&rows)[4], unsigned low, unsigned high)
{
    const unsigned group = threadIdx.x % 32 / 4, place = threadIdx.x % 4;
    const Factors *lanes = host::say(Factors{{rows[0], rows[1], rows[2], rows[3]}, {low, high}});
    for (int i = 0; i < 4; ++i)
        for (int k = 0; k < 16; ++k) {
            const unsigned row = lanes[4 * group + k % 8 / 2].rows[i / 2 + k / 8 * 2];
            const unsigned column = lanes[4 * (2 * place + i % 2) + k % 8 / 2].columns[k / 8];
            sum[i] += number_of(row, k % 2) * number_of(column, k % 2);
        }
}

__device__ unsigned transpose(unsigned two)
{
    const unsigned group = threadIdx.x % 32 / 4, place = threadIdx.x % 4;
    const unsigned *lanes = host::say(two);
    unsigned turned = 0;
    for (unsigned i = 0; i < 2; ++i)  // row 2 * place + i of what was said, column `group`
        turned |= (lanes[4 * (2 * place + i) + group / 2] >> 16 * (group % 2) & 0xffff) << 16 * i;
    return turned;
}

__device__ unsigned pack(float first, float second) { return to_number(first) | (unsigned)to_number(second) << 16; }

// Both halves' results. Those of a sum and a product may be rounded to float first: float has more than twice as many bits
// as fp16, so that fp16 comes out the same.
template <class Operation> unsigned for_both(Operation operation)
{
    unsigned two = 0;
    for (int half = 0; half < 2; ++half)
        two |= (unsigned)to_half((float)operation(half)) << 16 * half;
    return two;
}

__device__ float half_of(unsigned two, int half) { return from_half((unsigned short)(two >> 16 * half)); }

__device__ unsigned add_two(unsigned one, unsigned other)
{
    return for_both([=](int half) { return half_of(one, half) + half_of(other, half); });
}

__device__ unsigned multiply_two(unsigned one, unsigned other)
{
    return for_both([=](int half) { return half_of(one, half) * half_of(other, half); });
}

__device__ unsigned multiply_add_two(unsigned one, unsigned by, unsigned more)
{
    return for_both([=](int half) { return (double)half_of(one, half) * half_of(by, half) + half_of(more, half); });
}

// Arrivals that are left in a turn, arrivals of a turn, turns that are over, and bytes that are still to come.
typedef unsigned long long Barrier;
struct BarrierParts { unsigned char left, arrivals; unsigned short turns; int bytes; };
static_assert(sizeof(BarrierParts) == sizeof(Barrier), "a barrier is a word");

__device__ void begin_barrier(Barrier *barrier, int arrivals)
{
    *(BarrierParts *)barrier = {(unsigned char)arrivals, (unsigned char)arrivals, 0, 0};
}

// Other blocks change a barrier, too.
__device__ void change(Barrier *barrier, int arrivals, int bytes)
{
    Barrier before = __atomic_load_n(barrier, __ATOMIC_ACQUIRE), after;
    do {
        after = before;
        BarrierParts &parts = *(BarrierParts *)&after;
        parts.left -= arrivals, parts.bytes += bytes;
        if (parts.left == 0 && parts.bytes == 0)
            parts.left = parts.arrivals, ++parts.turns;
    } while (!__atomic_compare_exchange_n(barrier, &before, after, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
}

__device__ void arrive(Barrier *barrier) { change(barrier, 1, 0); }
__device__ void arrive_expecting(Barrier *barrier, unsigned bytes) { change(barrier, 1, bytes); }

// The last bit of `turn` is that of the turn that runs, or of the one before, which is over.
__device__ void wait_for_turn(Barrier *barrier, unsigned turn)
{
    host::Block::own().wait([=] {
        const Barrier now = __atomic_load_n(barrier, __ATOMIC_ACQUIRE);
        return ((const BarrierParts *)&now)->turns % 2 != turn % 2;
    });
}

// Copies take their time.
__device__ void copy_word(void *to, const void *from)
{
    host::Block::own().rest();
    std::memcpy(to, from, 16);
}

__device__ void copy_quarter(void *to, const void *from)
{
    host::Block::own().rest();
    std::memcpy(to, from, 4);
}

__device__ void arrive_when_copied(Barrier *barrier) { arrive(barrier); }

template <class Word> __device__ Word read_shared(const Word *at) { return *at; }
__device__ void ask_for(const void *) {}
__device__ void sync() { host::Block::own().meet(host::Block::own().meeting_of_some, 32 * WARPS); }

__device__ void add_both(float *at, float first, float second)
{
    for (const float more : {first, second}) {
        unsigned before = __atomic_load_n((unsigned *)at, __ATOMIC_RELAXED);
        Bits one;
        do
            one.bits = before, one.value += more;
        while (!__atomic_compare_exchange_n((unsigned *)at, &before, one.bits, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
        ++at;
    }
}

__device__ void signal(unsigned *count)
{
    if (threadIdx.x == 0)
        __atomic_fetch_add(count, 1, __ATOMIC_RELEASE);
}

__device__ void await_in_thread(const unsigned *count, unsigned goal)
{
    host::Block::own().wait([=] { return __atomic_load_n(count, __ATOMIC_ACQUIRE) >= goal; });
}

__device__ unsigned add_signal(unsigned *count) { return __atomic_fetch_add(count, 1, __ATOMIC_ACQ_REL); }

// --- between the blocks of a team

#if TEAM > 1
static uint4 *memory_of_blocks[TEAMS * TEAM];
static std::atomic<unsigned> has_come[TEAMS * TEAM];  // to a meeting of the team that begins with the block

__device__ void send(void *at, uint2 words, Barrier *barrier, unsigned member)
{
    host::Block::own().rest();
    char *const to = (char *)memory_of_blocks[blockIdx.x / TEAM * TEAM + member], *const from = (char *)memory;
    *(uint2 *)(to + ((char *)at - from)) = words;
    change((Barrier *)(to + ((char *)barrier - from)), 0, -8);
}

__device__ void wait_for_team(Barrier *barrier, unsigned turn) { wait_for_turn(barrier, turn); }

// Called once in a launch.
__device__ void meet_team()
{
    std::atomic<unsigned> &come = has_come[blockIdx.x / TEAM * TEAM];
    memory_of_blocks[blockIdx.x] = memory;
    const unsigned threads = TEAM * host::Block::own().threads, goal = (come++ / threads + 1) * threads;
    host::Block::own().wait([&come, goal] { return come >= goal; });
}
#endif
