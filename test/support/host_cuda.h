// What CUDA gives to kernels, for the host.
//
// The threads of a block take turns on one thread of the host, in another order in each round. So what they do does not
// depend on the machine's load, and a missing barrier shows.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include <ucontext.h>

struct Index { unsigned x, y, z; };
static thread_local Index threadIdx, blockIdx, blockDim, gridDim;

namespace host {

const size_t STACK_BYTES = 256 << 10;   // of a thread, of which the host takes what is touched
const size_t WARP_BYTES = 64;           // the most that a lane says to its warp at once
const std::chrono::seconds PATIENCE(60);  // after which threads that all wait are stuck

inline Index place(unsigned at, Index size) { return {at % size.x, at / size.x % size.y, at / size.x / size.y}; }
inline unsigned count(Index size) { return size.x * size.y * size.z; }

// Threads that wait for each other, as often as they like.
struct Meeting { unsigned here = 0, turn = 0; };

struct Warp {
    Meeting meeting;
    alignas(16) char said[2][32 * WARP_BYTES];  // by turns, so that one meeting lies between two words
};

struct Thread {
    ucontext_t context;
    bool is_done = false;
    bool (*is_over)(const void *) = nullptr;  // what it waits for, or null
    const void *wish = nullptr;
};

class Block {
  public:
    Block(Index size, const std::function<void()> &kernel)
        : threads(count(size)), warps((threads + 31) / 32), size_(size), kernel_(kernel), all_(threads),
          stacks_(new char[threads * STACK_BYTES])
    {}

    // Runs all threads. Returns false if they wait for what does not come.
    bool run()
    {
        own_ = this;
        std::vector<unsigned> order(threads);
        for (unsigned i = 0; i < threads; ++i)
            order[i] = i, begin(i);
        auto last = std::chrono::steady_clock::now();
        for (unsigned left = threads; left; ++round_) {
            std::shuffle(order.begin(), order.end(), random_);
            bool has_any_run = false;
            for (const unsigned i : order) {
                Thread &one = all_[i];
                if (one.is_done || (one.is_over && !one.is_over(one.wish)))
                    continue;
                has_any_run = true;
                one.is_over = nullptr;
                at_ = i, threadIdx = place(i, size_);
                swapcontext(&host_, &one.context);
                left -= one.is_done;
            }
            if (has_any_run)
                last = std::chrono::steady_clock::now();
            else if (std::chrono::steady_clock::now() - last > PATIENCE)
                return false;
            else
                std::this_thread::yield();  // to another block
        }
        return true;
    }

    // Lets other threads run until `is_over()`. Called by a thread of this block.
    template <class IsOver> void wait(const IsOver &is_over)
    {
        if (is_over())
            return;
        Thread &one = all_[at_];
        one.wish = &is_over;
        one.is_over = [](const void *wish) { return (*(const IsOver *)wish)(); };
        swapcontext(&one.context, &host_);
    }

    // Lets other threads run for some rounds, or not.
    void rest()
    {
        const unsigned rounds = random_() % 32;
        if (rounds < 8)
            wait([this, until = round_ + rounds] { return round_ > until; });
    }

    // Waits until `all` threads have come.
    void meet(Meeting &meeting, unsigned all)
    {
        const unsigned turn = meeting.turn;
        if (++meeting.here == all)
            meeting.here = 0, ++meeting.turn;
        else
            wait([&meeting, turn] { return meeting.turn != turn; });
    }

    unsigned lane() const { return at_ % 32; }
    Warp &warp() { return warps[at_ / 32]; }
    unsigned lanes() const { return std::min(32u, threads - at_ / 32 * 32); }
    static Block &own() { return *own_; }

    const unsigned threads;
    std::vector<Warp> warps;
    Meeting meeting_of_all, meeting_of_some;

  private:
    void begin(unsigned i)
    {
        all_[i] = Thread();
        getcontext(&all_[i].context);
        all_[i].context.uc_stack.ss_sp = stacks_.get() + i * STACK_BYTES;
        all_[i].context.uc_stack.ss_size = STACK_BYTES;
        all_[i].context.uc_link = &host_;
        makecontext(&all_[i].context, &Block::run_thread, 0);
    }

    static void run_thread()
    {
        own_->kernel_();
        own_->all_[own_->at_].is_done = true;
    }

    inline static thread_local Block *own_ = nullptr;
    const Index size_;
    const std::function<void()> kernel_;
    std::vector<Thread> all_;
    std::unique_ptr<char[]> stacks_;
    std::minstd_rand random_;
    ucontext_t host_;
    unsigned at_ = 0, round_ = 0;
};

// Says something to all lanes of the warp, and returns what they say.
template <class T> const T *say(const T &word)
{
    static_assert(sizeof(T) <= WARP_BYTES, "more than a lane may say");
    Block &block = Block::own();
    Warp &warp = block.warp();
    T *said = (T *)warp.said[warp.meeting.turn % 2];
    said[block.lane()] = word;
    block.meet(warp.meeting, block.lanes());
    return said;
}

inline void enter(Index grid, Index size, unsigned block)
{
    gridDim = grid, blockDim = size, blockIdx = place(block, grid);
}

// Runs a kernel, block after block. Threads that do not meet run one after the other.
inline bool run_in_turn(const unsigned *sizes, bool they_meet, const std::function<void()> &kernel)
{
    const Index grid = {sizes[0], sizes[1], sizes[2]}, size = {sizes[3], sizes[4], sizes[5]};
    std::unique_ptr<Block> block(they_meet ? new Block(size, kernel) : nullptr);
    bool is_done = true;
    for (unsigned at = 0; at < count(grid) && is_done; ++at) {
        enter(grid, size, at);
        if (block)
            is_done = block->run();
        else
            for (unsigned i = 0; i < count(size); ++i)
                threadIdx = place(i, size), kernel();
    }
    return is_done;
}

// Runs a kernel whose blocks wait for each other. `begin` runs before each block, where its shared memory is.
inline bool run_at_once(unsigned blocks, unsigned threads, const std::function<void()> &begin,
                        const std::function<void()> &kernel)
{
    std::atomic<bool> are_done(true);
    std::vector<std::thread> running;
    for (unsigned at = 0; at < blocks; ++at)
        running.emplace_back([&, at] {
            enter({blocks, 1, 1}, {threads, 1, 1}, at);
            begin();
            if (!Block({threads, 1, 1}, kernel).run())
                are_done = false;
        });
    for (auto &block : running)
        block.join();
    return are_done;
}

}  // namespace host

#define __global__
#define __device__ inline
#define __shared__ thread_local
#define __grid_constant__
#define __launch_bounds__(...)
#define __cluster_dims__(...)

struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };

inline void __syncthreads() { host::Block::own().meet(host::Block::own().meeting_of_all, host::Block::own().threads); }
inline void __syncwarp() { host::say(char()); }

template <class T> T __shfl_xor_sync(unsigned, T value, int distance)
{
    const unsigned lane = host::Block::own().lane() ^ distance;
    const T *values = host::say(value);
    return lane < host::Block::own().lanes() ? values[lane] : value;
}

inline unsigned __ballot_sync(unsigned, bool value)
{
    const bool *values = host::say(value);
    unsigned votes = 0;
    for (unsigned i = 0; i < host::Block::own().lanes(); ++i)
        votes |= unsigned(values[i]) << i;
    return votes;
}

// Four bytes of the eight of two words, as a digit of `which` says for each.
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned which)
{
    const unsigned long long eight = (unsigned long long)high << 32 | low;
    unsigned four = 0;
    for (int i = 0; i < 4; ++i)
        four |= unsigned(eight >> 8 * (which >> 4 * i & 7) & 0xff) << 8 * i;
    return four;
}

template <class T> T __ldcg(const T *at) { return *at; }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline float __expf(float value) { return expf(value); }
inline float __fdividef(float value, float by) { return value / by; }
inline float rsqrtf(float value) { return 1 / sqrtf(value); }
