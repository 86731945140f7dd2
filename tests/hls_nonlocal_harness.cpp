// Runs the kernel alone: int64 input codes on standard input, patch after patch, channels last; on standard output, for
// io_parallel and then io_stream, the codes of every step and of the result, patch after patch. Each further kernel that
// block.h names in KERNELS (changed copies of the first) follows, on io_stream.
// usage: harness PATCHES
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "ap_fixed.h"
#include "nnet_nonlocal.h"

namespace nnet {
bool trace_enabled = true;
std::map<std::string, void *> *trace_outputs = NULL;
size_t trace_type_size = sizeof(double);
} // namespace nnet

struct Step {
    const char *name;
    size_t size;
    int frac;
};

#include "block.h"

typedef config_io_stream shape;
static const unsigned SIZE = shape::positions * shape::channels;

static void put(double value, int frac) {
    const double scaled = std::ldexp(value, frac);
    const int64_t code = static_cast<int64_t>(scaled);
    if (static_cast<double>(code) != scaled) // NaN, too: a value that no step has written
        std::exit(3);
    std::fwrite(&code, sizeof code, 1, stdout);
}

// kernel: 0 is io_parallel, then the kernels on io_stream.
static void block_of(const std::vector<double> &input, std::vector<double> &output, int kernel) {
    if (kernel) {
        typedef nnet::array<data_t, shape::channels> pixel_t;
        typedef nnet::array<result_t, shape::channels> sum_t;
        hls::stream<pixel_t> data("data");
        hls::stream<sum_t> res("res");
        for (unsigned i = 0; i < shape::positions; i++) {
            pixel_t pixel;
            for (unsigned c = 0; c < shape::channels; c++)
                pixel[c] = input[i * shape::channels + c];
            data.write(pixel);
        }
        int index = 0;
#define RUN(name)                                                                                                      \
    if (++index == kernel)                                                                                             \
        nnet::name<pixel_t, sum_t, config_io_stream>(data, res, CONSTANTS);
        KERNELS(RUN)
        for (unsigned i = 0; i < shape::positions; i++) {
            const sum_t sum = res.read();
            for (unsigned c = 0; c < shape::channels; c++)
                output[i * shape::channels + c] = sum[c].to_double();
        }
    } else {
        data_t data[SIZE];
        result_t res[SIZE];
        for (unsigned i = 0; i < SIZE; i++)
            data[i] = input[i];
        nnet::nonlocal<data_t, result_t, config_io_parallel>(data, res, CONSTANTS);
        for (unsigned i = 0; i < SIZE; i++)
            output[i] = res[i].to_double();
    }
}

#define COUNT(name) +1
static const int RUNS = 1 KERNELS(COUNT);

int main(int argc, char **argv) {
    const size_t patches = argc > 1 ? std::atol(argv[1]) : 0;
    std::vector<int64_t> codes(patches * SIZE);
    if (std::fread(codes.data(), sizeof(int64_t), codes.size(), stdin) != codes.size())
        return 2;
    std::map<std::string, void *> traces;
    nnet::trace_outputs = &traces;
    for (int kernel = 0; kernel < RUNS; kernel++)
        for (size_t patch = 0; patch < patches; patch++) {
            std::map<std::string, std::vector<double>> kept;
            for (const Step &step : STEPS) {
                std::vector<double> &values = kept[step.name];
                values.assign(step.size, std::nan(""));
                traces[std::string("nlb.") + step.name] = values.data();
            }
            std::vector<double> input(SIZE), output(SIZE);
            for (unsigned i = 0; i < SIZE; i++)
                input[i] = std::ldexp(static_cast<double>(codes[patch * SIZE + i]), -FRAC_IN);
            block_of(input, output, kernel);
            for (const Step &step : STEPS)
                for (double value : kept[step.name])
                    put(value, step.frac);
            for (double value : output)
                put(value, FRAC_OUT);
        }
    return 0;
}
