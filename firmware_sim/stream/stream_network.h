// Processes and what lies between them, as fibers under a seeded random scheduler (docs/explanation/back_pressure.md).
#ifndef STREAM_NETWORK_H_
#define STREAM_NETWORK_H_

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

namespace simulation {

struct Process;

inline void fail(const std::string &message) { // one line, read by firmware_sim.stream.simulate
    std::printf("{\"error\": \"%s\"}\n", message.c_str());
    std::fflush(stdout);
    std::_Exit(0);
}

// What a process can wait for: a FIFO or a ping-pong buffer. `depth` elements at most; `fill` are in it.
struct Channel {
    std::string name;
    const bool buffer;
    unsigned declared, depth, fill, high;
    unsigned long passed; // elements that were written
    Process *writer, *reader;

    Channel(const std::string &name, bool buffer, unsigned depth);
    virtual ~Channel() {}
    virtual unsigned left() const { return fill; } // elements that wait for the reader
    virtual void deliver() {}                      // the writer's oldest element in flight is written; may block
    virtual void fetch() {}                        // the reader reads an element ahead; may block
    virtual unsigned ahead() const { return 0; }   // elements read ahead
    virtual void acquire(bool) {}                  // a copy of an array to write or read; may block
    virtual void hand_over(bool) {}

    void added(); // bookkeeping of a change, which may wake the other side
    void taken();
    void wait(bool writing);
};

// One process's access to one FIFO. `stage`: of its pipeline, in which the access is made. `ticks`: the iteration of
// each access of a run, known after the first run; every run must do the same.
struct Port {
    Channel *channel;
    bool reads;
    unsigned stage, count;
    std::vector<unsigned> ticks;

    // Accesses of a run in iterations up to `tick`.
    unsigned until(long tick) const {
        return tick < 0 ? 0 : std::upper_bound(ticks.begin(), ticks.end(), tick) - ticks.begin();
    }
};

// A call of a dataflow region, repeated for patch after patch as soon as it has returned. Arrays are handed over as in
// HLS: a run begins when all it reads are complete and all it writes have a free copy.
struct Process {
    std::string name;
    std::function<void()> body;
    std::vector<Channel *> written, read;
    unsigned long runs; // to do
    unsigned run, weight;
    bool begun; // this run has accessed a FIFO
    // The iteration is the largest number of accesses that a FIFO has had in this run; `now` is the tick of the pipeline.
    unsigned iteration, now;
    std::deque<Port> ports;
    std::multimap<unsigned, Channel *> in_flight; // writes not made yet, by the tick in which they are
    Channel *waits;
    bool waits_to_write;
    unsigned long asleep;
    ucontext_t context;

    Process(const std::string &name, std::function<void()> body, unsigned long runs)
        : name(name), body(body), runs(runs), run(0), weight(1), begun(false), iteration(0), now(0), waits(NULL),
          waits_to_write(false), asleep(0) {}
    Port &port(Channel *channel, bool reads);
    void access(Port &port); // before it: the iteration, and what is read ahead
    void release(unsigned tick);
    void end_run();
    void main();
};

// Where stalls come from, next to a random order of processes with random speeds.
struct Style {
    bool source, sink, inside;
    bool bursts;      // stalls of up to thousands of steps, else of a few
    std::string held; // this process runs only when no other can: its inputs fill as far as they ever can
};

class Scheduler {
  public:
    std::mt19937 random;
    unsigned seed, in_flight;
    Style style;
    std::map<std::string, unsigned> depths; // in place of the declared ones
    std::deque<std::unique_ptr<Process>> processes, regions;
    std::vector<Channel *> channels;
    std::string prefix;
    Process *current;

    Scheduler() : seed(0), in_flight(0), current(NULL), clock_(0), switch_of_(2) {}

    unsigned below(unsigned n) { return random() % n; }

    void region(const std::string &name, std::function<void()> body) {
        regions.emplace_back(new Process(prefix + name, body, 1));
    }

    // The regions declare their FIFOs and processes, then wait for ever.
    void set_up() {
        for (unsigned i = 0; i < regions.size(); i++) {
            prefix = regions[i]->name.empty() ? "" : regions[i]->name + ".";
            start(*regions[i]);
            resume(*regions[i]);
        }
        for (std::unique_ptr<Process> &process : processes)
            start(*process);
        const unsigned choices[] = {1, 2, 16};
        switch_of_ = choices[below(3)];
        speeds();
    }

    // Until no process can go on: the end, or a deadlock.
    void run() {
        std::vector<Process *> ready;
        while (true) {
            if (below(256) == 0)
                speeds();
            ready.clear();
            unsigned long wake = 0;
            unsigned total = 0;
            Process *held = NULL;
            for (std::unique_ptr<Process> &one : processes) {
                if (one->waits || one->run >= one->runs)
                    continue;
                if (one->asleep > clock_) {
                    wake = wake && wake < one->asleep ? wake : one->asleep;
                } else if (one->name == style.held) {
                    held = one.get();
                } else {
                    ready.push_back(one.get());
                    total += one->weight;
                }
            }
            if (ready.empty() && wake) {
                clock_ = wake;
                continue;
            }
            if (ready.empty() && !held)
                return;
            clock_++;
            Process *chosen = held;
            if (!ready.empty()) {
                unsigned at = below(total);
                unsigned i = 0;
                while (at >= ready[i]->weight)
                    at -= ready[i++]->weight;
                chosen = ready[i];
            }
            resume(*chosen);
        }
    }

    void yield() { swapcontext(&current->context, &main_); }

    // After an access: other processes may go on, always after one of the held process.
    void accessed() {
        if (style.inside)
            stall();
        if (current->name == style.held || below(switch_of_) == 0)
            yield();
    }

    void stall() {
        if (style.bursts ? below(100) == 0 : below(2) == 0) {
            current->asleep = clock_ + (style.bursts ? 1u << below(14) : 1 + below(16));
            yield();
        }
    }

    // The stage of an access, 0 to in_flight, of its own for each seed.
    unsigned stage(const std::string &process, const std::string &channel) const {
        if (!in_flight)
            return 0;
        std::string text = process + " " + channel;
        std::seed_seq seeds(text.begin(), text.end());
        uint32_t drawn[1];
        seeds.generate(drawn, drawn + 1);
        std::mt19937 engine(drawn[0] ^ (seed * 2654435761u));
        const unsigned kind = engine() % 5; // the extremes are the worst, and so more likely
        return kind < 2 ? 0 : kind < 4 ? in_flight : engine() % (in_flight + 1);
    }

  private:
    static const size_t stack_bytes = 16 << 20; // only what is touched takes memory
    ucontext_t main_;
    unsigned long clock_;
    unsigned switch_of_;

    void speeds() {
        for (std::unique_ptr<Process> &process : processes)
            process->weight = 1u << below(8);
    }

    void start(Process &process) {
        void *stack = mmap(NULL, stack_bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
        if (stack == MAP_FAILED)
            fail("no memory for the stack of " + process.name);
        getcontext(&process.context);
        process.context.uc_stack.ss_sp = stack;
        process.context.uc_stack.ss_size = stack_bytes;
        process.context.uc_link = NULL;
        makecontext(&process.context, &Scheduler::enter, 0);
    }

    void resume(Process &process) {
        current = &process;
        swapcontext(&main_, &process.context);
        current = NULL;
    }

    static void enter();
};

inline Scheduler &scheduler() {
    static Scheduler one;
    return one;
}

inline void Scheduler::enter() {
    scheduler().current->main();
    scheduler().yield(); // for ever: a process that is done is not chosen again
}

inline Channel::Channel(const std::string &name, bool buffer, unsigned depth)
    : name(scheduler().prefix + name), buffer(buffer), declared(depth), depth(depth), fill(0), high(0), passed(0),
      writer(NULL), reader(NULL) {
    const std::map<std::string, unsigned>::iterator found = scheduler().depths.find(this->name);
    if (found != scheduler().depths.end())
        this->depth = found->second;
    scheduler().channels.push_back(this);
}

inline void Channel::wait(bool writing) {
    Process *process = scheduler().current;
    process->waits = this;
    process->waits_to_write = writing;
    scheduler().yield();
}

inline void Channel::added() {
    passed++;
    if (reader && reader->waits == this && !reader->waits_to_write)
        reader->waits = NULL;
}

inline void Channel::taken() {
    fill--;
    if (writer && writer->waits == this && writer->waits_to_write)
        writer->waits = NULL;
}

// HLS allows one writer and one reader for each channel of a dataflow region.
inline void bind(Process *&side, const Channel &channel) {
    Process *process = scheduler().current;
    if (side && side != process)
        fail(channel.name + " is used by " + side->name + " and " + process->name + "; HLS allows one process");
    side = process;
}

inline Port &Process::port(Channel *channel, bool reads) {
    for (Port &known : ports)
        if (known.channel == channel && known.reads == reads)
            return known;
    ports.push_back(Port{channel, reads, scheduler().stage(name, channel->name), 0, {}});
    return ports.back();
}

// A pipeline that stalls as a whole: when an access in stage s of iteration i waits, so do all accesses in stage t of
// iteration i + s - t. Hence what other FIFOs give to later iterations in earlier stages has been read by then, and
// what earlier iterations write in later stages has not been written.
inline void Process::access(Port &port) {
    if (port.count > iteration)
        iteration = port.count;
    if (run == 0)
        port.ticks.push_back(iteration);
    else if (port.count >= port.ticks.size() || port.ticks[port.count] != iteration)
        fail(name + " accesses " + port.channel->name + " in another order in another run");
    port.count++;
    const unsigned tick = iteration + port.stage;
    if (port.reads) {
        if (run > 0 && port.stage > 0)
            for (Port &other : ports)
                if (other.reads && other.channel != port.channel)
                    while (other.count + other.channel->ahead() < other.until(static_cast<long>(tick) - other.stage))
                        other.channel->fetch();
        now = tick > now ? tick : now;
    } else {
        now = iteration > now ? iteration : now;
    }
}

inline void Process::release(unsigned tick) {
    while (!in_flight.empty() && in_flight.begin()->first <= tick) {
        Channel *channel = in_flight.begin()->second;
        in_flight.erase(in_flight.begin());
        channel->deliver();
    }
}

inline void Process::main() {
    for (; run < runs; run++) {
        for (Channel *channel : read)
            channel->acquire(false);
        for (Channel *channel : written)
            channel->acquire(true);
        body();
        end_run();
        for (Channel *channel : read)
            channel->hand_over(false);
        for (Channel *channel : written)
            channel->hand_over(true);
    }
}

inline void Process::end_run() {
    release(~0u);
    for (Port &port : ports) {
        if (port.count != port.ticks.size())
            fail(name + " accesses " + port.channel->name + " less often in another run");
        port.count = 0;
    }
    iteration = now = 0;
    begun = false;
}

} // namespace simulation
#endif
