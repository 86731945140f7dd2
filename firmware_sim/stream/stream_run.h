// Driver of the stream simulation (docs/explanation/back_pressure.md), included after the transformed top function.
//
// usage: stream CODES PATCHES INPUTS FRAC_IN OUTPUTS FRAC_OUT <SCHEDULES >RESULTS
//   CODES      int32, PATCHES x INPUTS
//   SCHEDULES  lines: SEED STYLE HELD IN_FLIGHT [FIFO=DEPTH ...]; HELD is a process or "-"
//   RESULTS    one line of JSON for each schedule
// Each schedule runs in a process of its own, because layers keep static state that a deadlock leaves as it is.
#ifndef STREAM_RUN_H_
#define STREAM_RUN_H_

#include <cmath>
#include <cstring>
#include <iostream>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>

// What hls4ml's bridge, which is not linked here, defines: no traces.
namespace nnet {
bool trace_enabled = false;
std::map<std::string, void *> *trace_outputs = NULL;
size_t trace_type_size = sizeof(double);
} // namespace nnet

namespace simulation {

struct Job {
    std::vector<int32_t> codes;
    unsigned patches, inputs, outputs;
    int frac_in, frac_out;
    std::vector<int64_t> found;
};

inline Style style(const std::string &name, const std::string &held) {
    const bool both = name == "both" || name == "everywhere";
    if (name != "free" && name != "source" && name != "sink" && !both)
        fail("stall style " + name + " is unknown");
    return Style{both || name == "source", both || name == "sink", name == "everywhere", false, held == "-" ? "" : held};
}

inline void send(Fifo<INPUT_T> &to, const Job &job) {
    Process *process = scheduler().current;
    const int32_t *codes = &job.codes[process->run * job.inputs];
    for (unsigned i = 0; i < job.inputs; i += INPUT_T::size) {
        INPUT_T beat;
        for (unsigned c = 0; c < INPUT_T::size; c++)
            beat[c] = std::ldexp(static_cast<double>(codes[i + c]), -job.frac_in);
        if (scheduler().style.source)
            scheduler().stall();
        to.write(beat);
    }
}

inline void receive(Fifo<OUTPUT_T> &from, Job &job) {
    for (unsigned i = 0; i < job.outputs; i += OUTPUT_T::size) {
        if (scheduler().style.sink)
            scheduler().stall();
        const OUTPUT_T beat = from.read();
        for (unsigned c = 0; c < OUTPUT_T::size; c++) {
            const double scaled = std::ldexp(beat[c].to_double(), job.frac_out);
            if (scaled != std::floor(scaled))
                fail("an output is no code of " + std::to_string(job.frac_out) + " fraction bits");
            job.found.push_back(static_cast<int64_t>(scaled));
        }
    }
}

inline std::string quoted(const std::string &text) { return "\"" + text + "\""; }

// Runs one schedule and prints what came of it.
inline void simulate(Job job) {
    Scheduler &all = scheduler();
    region("", [&]() {
        Fifo<INPUT_T> input("input", 1); // ports of the top function: a register each
        Fifo<OUTPUT_T> output("output", 1);
        process("source", {}, {}, [&]() { send(input, job); }, job.patches);
        region("", [&]() { STREAM_TOP(input, output); });
        process("sink", {}, {}, [&]() { receive(output, job); });
        park();
    });
    all.set_up();
    std::map<std::string, unsigned> unknown = all.depths;
    for (const Channel *channel : all.channels)
        unknown.erase(channel->name);
    for (const std::pair<const std::string, unsigned> &one : unknown)
        fail("no FIFO is called " + one.first);
    all.run();

    bool ended = true; // all is passed on, and no process is within a run
    std::ostringstream text;
    text << "{\"outputs\": [";
    for (size_t i = 0; i < job.found.size(); i++)
        text << (i ? ", " : "") << job.found[i];
    text << "], \"channels\": [";
    for (size_t i = 0; i < all.channels.size(); i++) {
        const Channel &one = *all.channels[i];
        ended = ended && !one.left();
        text << (i ? ", " : "") << "[" << quoted(one.name) << ", " << (one.buffer ? "true" : "false") << ", "
             << one.declared << ", " << one.depth << ", " << one.high << ", " << one.left() << ", " << one.passed << ", "
             << quoted(one.writer ? one.writer->name : "") << ", " << quoted(one.reader ? one.reader->name : "") << "]";
    }
    text << "], \"waits\": [";
    bool first = true;
    for (const std::unique_ptr<Process> &one : all.processes) {
        ended = ended && !one->begun && (one->name != "source" || one->run == one->runs);
        if (one->waits) {
            text << (first ? "" : ", ") << "[" << quoted(one->name) << ", " << (one->waits_to_write ? "true" : "false")
                 << ", " << quoted(one->waits->name) << ", " << one->waits->fill << ", " << one->waits->depth << ", "
                 << one->run << "]";
            first = false;
        }
    }
    std::printf("%s], \"ended\": %s}\n", text.str().c_str(), ended ? "true" : "false");
    std::fflush(stdout);
    std::_Exit(0);
}

} // namespace simulation

int main(int argc, char **argv) {
    using namespace simulation;
    if (argc != 7) {
        std::fprintf(stderr, "usage: %s CODES PATCHES INPUTS FRAC_IN OUTPUTS FRAC_OUT\n", argv[0]);
        return 2;
    }
    Job job;
    job.patches = std::atol(argv[2]), job.inputs = std::atol(argv[3]), job.frac_in = std::atoi(argv[4]);
    job.outputs = std::atol(argv[5]), job.frac_out = std::atoi(argv[6]);
    job.codes.resize(static_cast<size_t>(job.patches) * job.inputs);
    FILE *file = std::fopen(argv[1], "rb");
    if (!file || std::fread(job.codes.data(), sizeof(int32_t), job.codes.size(), file) != job.codes.size()) {
        std::perror(argv[1]);
        return 2;
    }
    std::string line;
    while (std::getline(std::cin, line)) {
        const pid_t child = fork();
        if (child == 0) {
            std::istringstream words(line);
            std::string name, held, word;
            Scheduler &all = scheduler();
            words >> all.seed >> name >> held >> all.in_flight;
            all.random.seed(all.seed);
            all.style = style(name, held);
            all.style.bursts = all.seed % 2;
            while (words >> word) {
                const size_t at = word.rfind('=');
                all.depths[word.substr(0, at)] = std::atol(word.c_str() + at + 1);
            }
            simulate(job);
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
            std::fprintf(stderr, "schedule \"%s\" ended with status %d\n", line.c_str(), status);
            return 3;
        }
    }
    return 0;
}
#endif
