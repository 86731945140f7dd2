// hls::stream as a FIFO of bounded depth, and the processes of a dataflow region as fibers under a seeded random
// scheduler: what docs/explanation/back_pressure.md simulates. It takes the place of the vendor's hls_stream.h.
//
// A stream has no empty(), full() or non-blocking access: a layer that polls a FIFO does not compile here. So every
// process is a function of what it reads, and whether a network of them can deadlock does not depend on the schedule
// (Kahn). The scheduler tries to prove that wrong, and drives the FIFOs to their highest fill.
#ifndef STREAM_HLS_H_
#define STREAM_HLS_H_

#include "stream_network.h"

namespace simulation {

// An element that flows. Elements in flight have been made by the writer, but are in its pipeline still; elements read
// ahead are in the reader's.
template <class T> class Fifo : public Channel {
  public:
    Fifo(const std::string &name, unsigned depth) : Channel(name, false, depth) {}

    void write(const T &value) {
        Process *process = scheduler().current;
        bind(writer, *this);
        Port &port = process->port(this, false);
        process->access(port);
        process->begun = true;
        late_.push_back(value);
        process->in_flight.insert(std::make_pair(process->iteration + port.stage, this));
        process->release(process->now);
        scheduler().accessed();
    }

    T read() {
        Process *process = scheduler().current;
        bind(reader, *this);
        process->access(process->port(this, true));
        if (early_.empty())
            fetch();
        const T value = early_.front();
        early_.pop_front();
        process->release(process->now);
        scheduler().accessed();
        return value;
    }

    void deliver() override {
        while (fill >= depth)
            wait(true);
        elements_.push_back(late_.front());
        late_.pop_front();
        fill++;
        high = fill > high ? fill : high;
        added();
    }

    void fetch() override {
        while (!fill)
            wait(false);
        early_.push_back(elements_.front());
        elements_.pop_front();
        reader->begun = true;
        taken();
    }

    unsigned ahead() const override { return early_.size(); }

  private:
    std::deque<T> late_, elements_, early_;
};

// An array between two processes, in `depth` copies: one is written while others are read. `fill` counts the copies
// that are in use, by either side.
template <class ARRAY> class PingPong : public Channel {
  public:
    PingPong(const std::string &name, unsigned depth)
        : Channel(name, true, depth), copies_(new Copy[this->depth]), complete_(0) {}
    ARRAY &copy() { return copies_[scheduler().current->run % depth].array; }
    unsigned left() const override { return complete_; }

    void acquire(bool writing) override {
        bind(writing ? writer : reader, *this);
        while (writing ? fill >= depth : !complete_)
            wait(writing);
        if (writing && ++fill > high)
            high = fill;
    }
    void hand_over(bool writing) override {
        if (writing) {
            complete_++;
            added();
        } else {
            complete_--;
            taken();
        }
    }

  private:
    struct Copy {
        ARRAY array;
    };
    std::unique_ptr<Copy[]> copies_;
    unsigned complete_;
};

// What a transformed dataflow function (firmware_sim.stream.simulate) consists of.
inline void process(const std::string &name, const std::vector<Channel *> &written, const std::vector<Channel *> &read,
                    std::function<void()> body, unsigned long runs = ~0ul) {
    scheduler().processes.emplace_back(new Process(scheduler().prefix + name, body, runs));
    scheduler().processes.back()->written = written;
    scheduler().processes.back()->read = read;
}
inline void region(const std::string &name, std::function<void()> body) { scheduler().region(name, body); }
inline void park() { scheduler().yield(); } // a region's FIFOs and arrays live as long as its processes

} // namespace simulation

namespace hls {
template <class T> using stream = simulation::Fifo<T>;
}
#endif
