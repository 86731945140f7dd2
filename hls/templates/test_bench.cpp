// Test bench with golden vectors: integer codes, compared exactly. The exit status is 0 only if every one is right.
//
// It is what `make test` runs here with g++, and what Vitis HLS runs as C simulation and, with RTL_SIM defined, as C/RTL
// co-simulation (build_prj.tcl). C++11, since that is what the build script asks for.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "firmware/@HEADER@.h"
#include "firmware/nnet_utils/nnet_helpers.h"
#include "firmware/normalize.h"

namespace nnet {
bool trace_enabled = false;
std::map<std::string, void *> *trace_outputs = NULL;
size_t trace_type_size = sizeof(double);
} // namespace nnet

static const int INPUTS = @N_IN@;
static const int OUTPUTS = @N_OUT@;
static const int SIZE = @SIZE@;

template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> long long code_of(const ap_fixed<W, I, Q, O, N> &value) {
    ap_int<W> bits;
    bits.range(W - 1, 0) = value.range(W - 1, 0);
    return bits.to_int64();
}

template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> long long code_of(const ap_ufixed<W, I, Q, O, N> &value) {
    ap_uint<W> bits;
    bits.range(W - 1, 0) = value.range(W - 1, 0);
    return bits.to_int64();
}

template <class T> void set_code(T &value, long long code) { value.range(T::width - 1, 0) = ap_int<64>(code); }

// The next line of the file as integers; false at its end. A line of another length ends the program.
static bool read_row(std::ifstream &file, const char *path, std::vector<long long> &row) {
    std::string line;
    if (!std::getline(file, line))
        return false;
    std::istringstream text(line);
    for (size_t i = 0; i < row.size(); i++)
        if (!(text >> row[i])) {
            std::cerr << "ERROR: " << path << ": a line has fewer than " << row.size() << " integers" << std::endl;
            std::exit(2);
        }
    return true;
}

static void run_@SUBJECT@(const std::vector<long long> &codes, std::vector<long long> &outputs) {
@RUN_NETWORK@
}

static int check_normalizer(const char *path) {
    std::ifstream file(path);
    std::vector<long long> row(2 * INPUTS);
    int patches = 0;
    for (; read_row(file, path, row); patches++) {
        normalize::count_t counts[INPUTS];
        normalize::code_t codes[INPUTS];
        for (int i = 0; i < INPUTS; i++)
            counts[i] = row[i];
        normalize::counts_to_codes(counts, codes);
        for (int i = 0; i < INPUTS; i++)
            if (codes[i].to_int64() != row[INPUTS + i]) {
                std::cerr << "ERROR: normalizer: patch " << patches << ", pixel (" << i / SIZE << ", " << i % SIZE
                          << "): code " << codes[i].to_int64() << ", expected " << row[INPUTS + i] << std::endl;
                return -1;
            }
    }
    return patches;
}

static int check_@SUBJECT@(const char *path, std::ofstream &log) {
    std::ifstream file(path);
    std::vector<long long> row(INPUTS + OUTPUTS), outputs(OUTPUTS);
    int patches = 0;
    for (; read_row(file, path, row); patches++) {
        run_@SUBJECT@(std::vector<long long>(row.begin(), row.begin() + INPUTS), outputs);
        for (int k = 0; k < OUTPUTS; k++)
            log << outputs[k] << (k + 1 < OUTPUTS ? " " : "\n");
        for (int k = 0; k < OUTPUTS; k++)
            if (outputs[k] != row[INPUTS + k]) {
                std::cerr << "ERROR: @SUBJECT@: patch " << patches << ", output " << k << ": code " << outputs[k]
                          << ", expected " << row[INPUTS + k] << std::endl;
                return -1;
            }
    }
    return patches;
}

int main() {
#ifdef RTL_SIM
    std::ofstream log("tb_data/rtl_cosim_results.log");
#else
    std::ofstream log("tb_data/csim_results.log");
#endif
    const int normalized = check_normalizer("tb_data/counts_to_codes.dat");
    const int located = check_@SUBJECT@("tb_data/@DATA@.dat", log);
    if (normalized < 0 || located < 0)
        return 1;
    if (normalized != @COUNTS@ || located != @CODES@) {
        std::cerr << "ERROR: tb_data holds " << normalized << " and " << located
                  << " golden vectors, expected @COUNTS@ and @CODES@" << std::endl;
        return 1;
    }
    std::cout << "PASS: normalizer on " << normalized << " patches, @SUBJECT@ on " << located << " patches" << std::endl;
    return 0;
}
