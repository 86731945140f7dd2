// Work in groups on several threads, for every compiled kernel; see compiler.py.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace braggnn {

// Call work(state, group) for each group once; state: made by each thread for itself. Fewer threads than asked for do
// the same work. Returns 1 when something was thrown, which is memory that is short; no exception leaves it.
template <typename Make, typename Work>
int in_threads(int threads, std::int64_t groups, Make make, Work work) {
    std::atomic<std::int64_t> next{0};
    std::atomic<int> failed{0};
    auto job = [&] {
        try {
            auto state = make();
            for (std::int64_t group; (group = next++) < groups;) work(state, group);
        } catch (...) {
            failed = 1;
        }
    };
    std::vector<std::thread> others;
    try {
        for (std::int64_t i = 1; i < std::min<std::int64_t>(threads, groups); ++i) others.emplace_back(job);
    } catch (...) {  // fewer threads
    }
    job();
    for (auto& thread : others) thread.join();
    return failed;
}

}  // namespace braggnn
