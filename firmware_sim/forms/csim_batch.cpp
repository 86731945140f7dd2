// Batch driver of the C simulation: integer codes in, integer codes out, nothing in between but the generated firmware.
//
// It is linked with the bridge that hls4ml writes for every C++ back end, whose interface is double; a code of up to
// 53 bits times a power of two is a double exactly, and so is the way back. A result that is not a code at the
// declared fraction ends the program with status 3, so the conversion cannot hide anything.
//
// usage: csim_batch CODES OUTPUTS INPUTS FRAC_IN N_OUT FRAC_OUT [TRACE (LAYER SIZE FRAC)...]
//   CODES    int32, patches x INPUTS         OUTPUTS  int64, patches x N_OUT, written
//   TRACE    int64, patches x the sum of the SIZEs, written: all the named layers of a patch, in the order given. A name
//            that hls4ml does not know is a step inside a layer, which fills the storage it finds under that name.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#ifndef TOP
#error "compile with -DTOP=<project>_double"
#endif

namespace nnet {
extern std::map<std::string, void *> *trace_outputs;
}
extern "C" {
void TOP(double *input, double *output);
void allocate_trace_storage(size_t element_size);
}

struct Layer {
    std::string name;
    size_t size;
    int frac;
};

static FILE *open_file(const char *path, const char *mode) {
    FILE *file = std::fopen(path, mode);
    if (!file) {
        std::perror(path);
        std::exit(2);
    }
    return file;
}

static void write_codes(const double *values, size_t size, int frac, const char *name, FILE *file) {
    std::vector<int64_t> codes(size);
    for (size_t i = 0; i < size; i++) {
        if (std::isnan(values[i])) {
            std::fprintf(stderr, "layer %s leaves no trace in this project\n", name);
            std::exit(4);
        }
        const double scaled = std::ldexp(values[i], frac);
        codes[i] = static_cast<int64_t>(scaled);
        if (static_cast<double>(codes[i]) != scaled) {
            std::fprintf(stderr, "%s: %.17g at index %zu is no code of %d fraction bits\n", name, values[i], i, frac);
            std::exit(3);
        }
    }
    if (std::fwrite(codes.data(), sizeof(int64_t), size, file) != size) {
        std::perror(name);
        std::exit(2);
    }
}

int main(int argc, char **argv) {
    if (argc < 7 || (argc > 7 && (argc - 8) % 3 != 0)) {
        std::fprintf(stderr, "usage: %s CODES OUTPUTS INPUTS FRAC_IN N_OUT FRAC_OUT [TRACE (LAYER SIZE FRAC)...]\n", argv[0]);
        return 2;
    }
    FILE *codes_file = open_file(argv[1], "rb");
    FILE *output_file = open_file(argv[2], "wb");
    const size_t inputs = std::atol(argv[3]), outputs = std::atol(argv[5]);
    const int frac_in = std::atoi(argv[4]), frac_out = std::atoi(argv[6]);
    FILE *trace_file = argc > 7 ? open_file(argv[7], "wb") : NULL;
    std::vector<Layer> layers;
    for (int i = 8; i + 2 < argc; i += 3)
        layers.push_back(Layer{argv[i], static_cast<size_t>(std::atol(argv[i + 1])), std::atoi(argv[i + 2])});
    std::map<std::string, std::vector<double>> steps;
    if (trace_file) {
        allocate_trace_storage(sizeof(double));
        for (const Layer &layer : layers)
            if (!nnet::trace_outputs->count(layer.name)) {
                steps[layer.name].assign(layer.size, std::nan("")); // what nobody writes is found by write_codes
                (*nnet::trace_outputs)[layer.name] = steps[layer.name].data();
            }
    }

    std::vector<int32_t> codes(inputs);
    std::vector<double> input(inputs), output(outputs);
    while (std::fread(codes.data(), sizeof(int32_t), inputs, codes_file) == inputs) {
        for (size_t i = 0; i < inputs; i++)
            input[i] = std::ldexp(static_cast<double>(codes[i]), -frac_in);
        TOP(input.data(), output.data());
        write_codes(output.data(), outputs, frac_out, "output", output_file);
        for (const Layer &layer : layers)
            write_codes(static_cast<double *>((*nnet::trace_outputs)[layer.name]), layer.size, layer.frac,
                        layer.name.c_str(), trace_file);
    }
    if (std::fclose(output_file) != 0 || (trace_file && std::fclose(trace_file) != 0)) {
        std::perror("close");
        return 2;
    }
    return 0;
}
