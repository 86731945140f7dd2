// Batch driver of the normalizer: int32 counts in, int32 codes out, one patch after the other.
// usage: csim_normalize COUNTS CODES
#include <cstdint>
#include <cstdio>

#include "firmware/normalize.h"

int main(int argc, char **argv) {
    FILE *in = argc == 3 ? std::fopen(argv[1], "rb") : NULL;
    FILE *out = in ? std::fopen(argv[2], "wb") : NULL;
    if (!out) {
        std::fprintf(stderr, "usage: csim_normalize COUNTS CODES\n");
        return 2;
    }
    int32_t row[normalize::N];
    while (std::fread(row, sizeof(int32_t), normalize::N, in) == normalize::N) {
        normalize::count_t counts[normalize::N];
        normalize::code_t codes[normalize::N];
        for (int i = 0; i < normalize::N; i++)
            counts[i] = row[i];
        normalize::counts_to_codes(counts, codes);
        for (int i = 0; i < normalize::N; i++)
            row[i] = codes[i].to_int();
        std::fwrite(row, sizeof(int32_t), normalize::N, out);
    }
    return std::fclose(out) == 0 ? 0 : 2;
}
