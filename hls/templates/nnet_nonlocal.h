// Non-local block (self-attention over all pixels, with a residual) in the integer contract: see
// docs/explanation/attention_hls.md.
//
//   q = theta(x), k = phi(x), v = g(x)     1 x 1 convolutions, requantized; k and v the maxima of windows, if pooled
//   s = q . k, m = max_j s                 exact
//   t = m - s, e = exp_table[t]            saturated index of a table
//   S = sum_j e, a = sum_j e * v           exact
//   y = a * reciprocal(S)                  a table over the bits below the leading one of S, one floor
//   z = out(y) + x                         exact: the result
//
// Every type is prescribed by the integer network. A type that requantizes is declared AP_TRN, AP_SAT: the assignment to
// it is the contract's floor and saturation. All other types are as wide as their values need.
//
// Four processes in a dataflow region, one patch after another: project, score, weigh, merge. Keys and values are
// arrays, complete before the first row of scores; everything else flows through FIFOs. `parallel` keys are handled in a
// cycle; a row of scores takes `groups` cycles, and so project and merge have as many cycles for each position and share
// their multipliers over them.
#ifndef NNET_NONLOCAL_H_
#define NNET_NONLOCAL_H_

#include "hls_stream.h"
#include "nnet_common.h"
#include "nnet_helpers.h"
#include "nnet_types.h"

#ifndef __SYNTHESIS__
#include <map>
#include <string>
#endif

namespace nnet {

// The interface of hls4ml's io_type: an array of positions x channels, or a stream of one position a beat, its channels
// side by side. Channels last in both.
template <class T, class CONFIG_T, unsigned IO_TYPE> struct nonlocal_port;

template <class T, class CONFIG_T> struct nonlocal_port<T, CONFIG_T, io_parallel> {
    typedef T (&port_t)[CONFIG_T::positions * CONFIG_T::channels];
    typedef nnet::array<T, CONFIG_T::channels> pixel_t;

    static pixel_t read(port_t data, unsigned position) {
        #pragma HLS INLINE
        pixel_t pixel;
        for (unsigned c = 0; c < CONFIG_T::channels; c++) {
            #pragma HLS UNROLL
            pixel[c] = data[position * CONFIG_T::channels + c];
        }
        return pixel;
    }

    static void write(port_t res, unsigned position, const pixel_t &pixel) {
        #pragma HLS INLINE
        for (unsigned c = 0; c < CONFIG_T::channels; c++) {
            #pragma HLS UNROLL
            res[position * CONFIG_T::channels + c] = pixel[c];
        }
    }
};

template <class T, class CONFIG_T> struct nonlocal_port<T, CONFIG_T, io_stream> {
    typedef hls::stream<T> &port_t;
    typedef T pixel_t;

    static pixel_t read(port_t data, unsigned) {
        #pragma HLS INLINE
        return data.read();
    }

    static void write(port_t res, unsigned, const pixel_t &pixel) {
        #pragma HLS INLINE
        res.write(pixel);
    }
};

// What follows from a configuration: CONFIG_T gives positions (side x side), side, pool, channels, inner, parallel and
// the types.
template <class data_T, class CONFIG_T> struct nonlocal_shape {
    typedef nonlocal_port<data_T, CONFIG_T, CONFIG_T::io_type> source;

    // A key and a value are the maxima of a window of pool x pool positions; pool divides side.
    static const unsigned windows = CONFIG_T::side / CONFIG_T::pool;
    static const unsigned keys = windows * windows;
    static const unsigned groups = (keys + CONFIG_T::parallel - 1) / CONFIG_T::parallel;
    // Multipliers that project and merge may use, each being given `groups` cycles for a position.
    static const unsigned project_multipliers = (3 * CONFIG_T::channels * CONFIG_T::inner + groups - 1) / groups;
    static const unsigned merge_multipliers = ((CONFIG_T::channels + 1) * CONFIG_T::inner + groups - 1) / groups;
    // Two patches of positions wait at most: one whose rows are being worked on, one whose keys are being made. One
    // patch is the least that cannot deadlock, since no row starts before all keys are there.
    static const unsigned waiting = 2 * CONFIG_T::positions;
    // Two FIFOs lead from score to weigh, and two from weigh to merge. A pipeline stalls as a whole: while it waits for
    // one of them, it must not hold back what the other needs. `skew`: cycles that the accesses to the two may be apart,
    // in the writer's pipeline and the reader's together (docs/explanation/back_pressure.md).
    static const unsigned skew = 24;
    static const unsigned row_waiting = 2 + skew;
    // Two rows of scores: the maximum of a row is known, and its weighing starts, after its last score.
    static const unsigned score_waiting = 2 * groups + skew;

    typedef typename source::pixel_t pixel_t;
    typedef nnet::array<typename CONFIG_T::query_t, CONFIG_T::inner> queries_t;
    typedef nnet::array<typename CONFIG_T::score_t, CONFIG_T::parallel> scores_t;
    typedef nnet::array<typename CONFIG_T::weighted_t, CONFIG_T::inner> weighted_t;
};

// A step's value for the comparison with the integer network, under the name "<layer>.<step>". Nothing in synthesis.
#ifndef __SYNTHESIS__
template <class CONFIG_T, class T> void nonlocal_trace(const char *step, unsigned index, const T &value) {
    if (!trace_enabled || !trace_outputs)
        return;
    const std::string name = std::string(CONFIG_T::name()) + "." + step;
    const std::map<std::string, void *>::iterator found = trace_outputs->find(name);
    if (found == trace_outputs->end())
        return;
    if (trace_type_size == sizeof(double))
        static_cast<double *>(found->second)[index] = value.to_double();
    else
        static_cast<float *>(found->second)[index] = value.to_float();
}
#define NONLOCAL_TRACE(step, index, value) nonlocal_trace<CONFIG_T>(step, index, value)
#else
#define NONLOCAL_TRACE(step, index, value)
#endif

// One output of a 1 x 1 convolution: exact, acc_T holds every partial sum.
template <class acc_T, class data_T, class weight_T, class bias_T, unsigned N>
acc_T nonlocal_dot(const nnet::array<data_T, N> &x, const weight_T *weight, const bias_T &bias) {
    #pragma HLS INLINE
    acc_T sum = bias;
    for (unsigned c = 0; c < N; c++) {
        #pragma HLS UNROLL
        sum += weight[c] * x[c];
    }
    return sum;
}

// Positions in, one in `groups` cycles: x and the queries go on, keys and values are kept for the patch.
template <class data_T, class CONFIG_T>
void nonlocal_project(
    typename nonlocal_shape<data_T, CONFIG_T>::source::port_t data,
    hls::stream<typename nonlocal_shape<data_T, CONFIG_T>::pixel_t> &pixels,
    hls::stream<typename nonlocal_shape<data_T, CONFIG_T>::queries_t> &queries,
    typename CONFIG_T::key_t keys[nonlocal_shape<data_T, CONFIG_T>::groups][CONFIG_T::parallel][CONFIG_T::inner],
    typename CONFIG_T::value_t values[nonlocal_shape<data_T, CONFIG_T>::groups][CONFIG_T::parallel][CONFIG_T::inner],
    const typename CONFIG_T::theta_weight_t theta_weight[CONFIG_T::inner * CONFIG_T::channels],
    const typename CONFIG_T::theta_bias_t theta_bias[CONFIG_T::inner],
    const typename CONFIG_T::phi_weight_t phi_weight[CONFIG_T::inner * CONFIG_T::channels],
    const typename CONFIG_T::phi_bias_t phi_bias[CONFIG_T::inner],
    const typename CONFIG_T::g_weight_t g_weight[CONFIG_T::inner * CONFIG_T::channels],
    const typename CONFIG_T::g_bias_t g_bias[CONFIG_T::inner]) {
    typedef nonlocal_shape<data_T, CONFIG_T> shape;
    // All weights are read for each position: constants in logic, not words of a memory with two ports.
    #pragma HLS ARRAY_PARTITION variable=theta_weight complete
    #pragma HLS ARRAY_PARTITION variable=theta_bias complete
    #pragma HLS ARRAY_PARTITION variable=phi_weight complete
    #pragma HLS ARRAY_PARTITION variable=phi_bias complete
    #pragma HLS ARRAY_PARTITION variable=g_weight complete
    #pragma HLS ARRAY_PARTITION variable=g_bias complete
    // Rows are not worked on faster than one in `groups` cycles; a faster projection would only cost multipliers.
    #pragma HLS ALLOCATION operation instances=mul limit=shape::project_multipliers

    // The maxima of the open windows, one row of them. They are registers of this process, and not kept in `keys` and
    // `values`, for two reasons: a channel between dataflow processes may be written here but not read back, and
    // a register that is read and written each iteration allows one position a cycle (groups = 1), a memory does not.
    // Never read, and so removed, where there is no pooling.
    typename CONFIG_T::key_t key_maxima[shape::windows][CONFIG_T::inner];
    typename CONFIG_T::value_t value_maxima[shape::windows][CONFIG_T::inner];
    #pragma HLS ARRAY_PARTITION variable=key_maxima complete dim=0
    #pragma HLS ARRAY_PARTITION variable=value_maxima complete dim=0

    // Counters, since divisions by `parallel` and `pool` would be some in hardware. Windows are complete, and keys
    // are written, in the order of their numbers.
    unsigned group = 0, lane = 0;          // of the next key
    unsigned row = 0, col = 0, window = 0; // inside the window; the window in its row
    for (unsigned i = 0; i < CONFIG_T::positions; i++) {
        #pragma HLS PIPELINE II=shape::groups
        const typename shape::pixel_t pixel = shape::source::read(data, i);
        const bool opens = CONFIG_T::pool == 1 || (row == 0 && col == 0);
        const bool closes = CONFIG_T::pool == 1 || (row == CONFIG_T::pool - 1 && col == CONFIG_T::pool - 1);
        typename shape::queries_t query;
        for (unsigned d = 0; d < CONFIG_T::inner; d++) {
            #pragma HLS UNROLL
            const unsigned first = d * CONFIG_T::channels;
            query[d] = nonlocal_dot<typename CONFIG_T::theta_accum_t>(pixel, theta_weight + first, theta_bias[d]);
            typename CONFIG_T::key_t key =
                nonlocal_dot<typename CONFIG_T::phi_accum_t>(pixel, phi_weight + first, phi_bias[d]);
            typename CONFIG_T::value_t value =
                nonlocal_dot<typename CONFIG_T::g_accum_t>(pixel, g_weight + first, g_bias[d]);
            if (!opens && key_maxima[window][d] > key)
                key = key_maxima[window][d];
            if (!opens && value_maxima[window][d] > value)
                value = value_maxima[window][d];
            key_maxima[window][d] = key;
            value_maxima[window][d] = value;
            NONLOCAL_TRACE("q", i * CONFIG_T::inner + d, query[d]);
            if (closes) {
                keys[group][lane][d] = key;
                values[group][lane][d] = value;
                NONLOCAL_TRACE("k", (group * CONFIG_T::parallel + lane) * CONFIG_T::inner + d, key);
                NONLOCAL_TRACE("v", (group * CONFIG_T::parallel + lane) * CONFIG_T::inner + d, value);
            }
        }
        pixels.write(pixel);
        queries.write(query);
        if (closes && ++lane == CONFIG_T::parallel) {
            lane = 0;
            group++;
        }
        if (++col == CONFIG_T::pool) {
            col = 0;
            if (++window == shape::windows) {
                window = 0;
                if (++row == CONFIG_T::pool)
                    row = 0;
            }
        }
    }
}

// `parallel` scores a cycle, and the maximum of each row after its last. One loop over rows and groups, so that the
// pipeline does not drain between rows.
template <class data_T, class CONFIG_T>
void nonlocal_score(
    hls::stream<typename nonlocal_shape<data_T, CONFIG_T>::queries_t> &queries,
    const typename CONFIG_T::key_t keys[nonlocal_shape<data_T, CONFIG_T>::groups][CONFIG_T::parallel][CONFIG_T::inner],
    hls::stream<typename nonlocal_shape<data_T, CONFIG_T>::scores_t> &scores,
    hls::stream<typename CONFIG_T::score_t> &maxima) {
    typedef nonlocal_shape<data_T, CONFIG_T> shape;
    typename shape::queries_t query;
    typename CONFIG_T::score_t maximum = 0;
    unsigned group = 0, row = 0, first = 0; // first: the group's first key
    for (unsigned step = 0; step < CONFIG_T::positions * shape::groups; step++) {
        #pragma HLS PIPELINE II=1
        if (group == 0)
            query = queries.read();
        typename shape::scores_t found;
        typename CONFIG_T::score_t compared[CONFIG_T::parallel];
        #pragma HLS ARRAY_PARTITION variable=compared complete
        for (unsigned lane = 0; lane < CONFIG_T::parallel; lane++) {
            #pragma HLS UNROLL
            found[lane] = 0;
            compared[lane] = found[0];        // stands for a lane without a key; lane 0 always has one
            if (first + lane < shape::keys) { // the last group may have fewer keys
                for (unsigned d = 0; d < CONFIG_T::inner; d++) {
                    #pragma HLS UNROLL
                    found[lane] += query[d] * keys[group][lane][d];
                }
                compared[lane] = found[lane];
                NONLOCAL_TRACE("s", row * shape::keys + first + lane, found[lane]);
            }
        }
        // The lanes' own maximum by a tree, then one comparison with the row's: only that is carried from one cycle to
        // the next and must fit into a cycle, however many lanes there are.
        typedef nnet::Op_max<typename CONFIG_T::score_t> larger_t;
        const typename CONFIG_T::score_t largest =
            nnet::reduce<typename CONFIG_T::score_t, CONFIG_T::parallel, larger_t>(compared, larger_t());
        if (group == 0 || largest > maximum)
            maximum = largest;
        scores.write(found);
        first += CONFIG_T::parallel;
        if (++group == shape::groups) {
            maxima.write(maximum);
            NONLOCAL_TRACE("m", row, maximum);
            group = first = 0;
            row++;
        }
    }
}

// `parallel` exponentials a cycle, summed alone and weighted with the values.
template <class data_T, class CONFIG_T>
void nonlocal_weigh(
    hls::stream<typename nonlocal_shape<data_T, CONFIG_T>::scores_t> &scores,
    hls::stream<typename CONFIG_T::score_t> &maxima,
    const typename CONFIG_T::value_t
        values[nonlocal_shape<data_T, CONFIG_T>::groups][CONFIG_T::parallel][CONFIG_T::inner],
    const typename CONFIG_T::exp_table_t exp_table[CONFIG_T::exp_entries],
    hls::stream<typename nonlocal_shape<data_T, CONFIG_T>::weighted_t> &weighted,
    hls::stream<typename CONFIG_T::total_t> &totals) {
    typedef nonlocal_shape<data_T, CONFIG_T> shape;
    // `parallel` look-ups a cycle: a ROM with a copy for each, in look-up tables, since it is small.
    #pragma HLS BIND_STORAGE variable=exp_table type=ROM_NP impl=LUTRAM
    typename CONFIG_T::score_t maximum = 0;
    typename CONFIG_T::total_t total = 0;
    typename shape::weighted_t sum;
    unsigned group = 0, row = 0, first = 0;
    for (unsigned step = 0; step < CONFIG_T::positions * shape::groups; step++) {
        #pragma HLS PIPELINE II=1
        if (group == 0) {
            maximum = maxima.read();
            total = 0;
            for (unsigned d = 0; d < CONFIG_T::inner; d++) {
                #pragma HLS UNROLL
                sum[d] = 0;
            }
        }
        const typename shape::scores_t found = scores.read();
        // The lanes' own sums, then one addition to the row's, for the same reason.
        typename CONFIG_T::total_t lanes_total = 0;
        typename shape::weighted_t lanes_sum;
        for (unsigned d = 0; d < CONFIG_T::inner; d++) {
            #pragma HLS UNROLL
            lanes_sum[d] = 0;
        }
        for (unsigned lane = 0; lane < CONFIG_T::parallel; lane++) {
            #pragma HLS UNROLL
            if (first + lane < shape::keys) {
                const typename CONFIG_T::index_t difference = maximum - found[lane]; // floor, saturate
                const ap_uint<CONFIG_T::index_t::width> entry = difference.range(CONFIG_T::index_t::width - 1, 0);
                const typename CONFIG_T::exp_table_t exponential = exp_table[entry.to_uint()];
                lanes_total += exponential;
                for (unsigned d = 0; d < CONFIG_T::inner; d++) {
                    #pragma HLS UNROLL
                    lanes_sum[d] += exponential * values[group][lane][d];
                }
                NONLOCAL_TRACE("t", row * shape::keys + first + lane, difference);
                NONLOCAL_TRACE("e", row * shape::keys + first + lane, exponential);
            }
        }
        total += lanes_total;
        for (unsigned d = 0; d < CONFIG_T::inner; d++) {
            #pragma HLS UNROLL
            sum[d] += lanes_sum[d];
        }
        first += CONFIG_T::parallel;
        if (++group == shape::groups) {
            weighted.write(sum);
            totals.write(total);
            NONLOCAL_TRACE("S", row, total);
            for (unsigned d = 0; d < CONFIG_T::inner; d++)
                NONLOCAL_TRACE("a", row * CONFIG_T::inner + d, sum[d]);
            group = first = 0;
            row++;
        }
    }
}

// Rows end: divide by the sum through the reciprocal's table, project back, add x. One position in `groups` cycles.
template <class data_T, class res_T, class CONFIG_T>
void nonlocal_merge(
    hls::stream<typename nonlocal_shape<data_T, CONFIG_T>::weighted_t> &weighted,
    hls::stream<typename CONFIG_T::total_t> &totals,
    hls::stream<typename nonlocal_shape<data_T, CONFIG_T>::pixel_t> &pixels,
    typename nonlocal_port<res_T, CONFIG_T, CONFIG_T::io_type>::port_t res,
    const typename CONFIG_T::reciprocal_table_t reciprocal_table[1 << CONFIG_T::reciprocal_index_bits],
    const typename CONFIG_T::out_weight_t out_weight[CONFIG_T::channels * CONFIG_T::inner],
    const typename CONFIG_T::out_bias_t out_bias[CONFIG_T::channels]) {
    typedef nonlocal_shape<data_T, CONFIG_T> shape;
    typedef nonlocal_port<res_T, CONFIG_T, CONFIG_T::io_type> sink;
    // The sum is at least the table's largest exponential, 2**least - 1, so it has at most total - least leading zeros.
    static const int total_bits = CONFIG_T::total_t::width;
    static const int least_bits = CONFIG_T::exp_table_t::width;
    static const int weighted_bits = CONFIG_T::weighted_t::width;
    static const int reciprocal_bits = CONFIG_T::reciprocal_table_t::width;
    static const int product_bits = weighted_bits + reciprocal_bits;
    // Fraction of a * R after the shift by bit_length(S) - least_bits: 1 / S is about R * 2**-(R's bits - 1 +
    // bit_length(S)).
    static const int value_frac = CONFIG_T::value_t::width - CONFIG_T::value_t::iwidth;
    static const int product_frac = value_frac + reciprocal_bits - 1 + least_bits;
    #pragma HLS ARRAY_PARTITION variable=out_weight complete
    #pragma HLS ARRAY_PARTITION variable=out_bias complete
    #pragma HLS ALLOCATION operation instances=mul limit=shape::merge_multipliers
    for (unsigned i = 0; i < CONFIG_T::positions; i++) {
        #pragma HLS PIPELINE II=shape::groups
        const typename shape::weighted_t sum = weighted.read();
        const typename CONFIG_T::total_t total = totals.read();
        const typename shape::pixel_t pixel = pixels.read();
        ap_uint<total_bits> aligned = total.range(total_bits - 1, 0);
        unsigned shift = total_bits - least_bits; // bit_length(total) - least_bits
        for (int zero = 0; zero < total_bits - least_bits; zero++) {
            #pragma HLS UNROLL
            if (!aligned[total_bits - 1]) {
                aligned <<= 1;
                shift--;
            }
        }
        const ap_uint<CONFIG_T::reciprocal_index_bits> entry =
            aligned >> (total_bits - 1 - CONFIG_T::reciprocal_index_bits);
        const typename CONFIG_T::reciprocal_table_t reciprocal = reciprocal_table[entry.to_uint()];
        NONLOCAL_TRACE("R", i, reciprocal);
        nnet::array<typename CONFIG_T::mixed_t, CONFIG_T::inner> mixed;
        for (unsigned d = 0; d < CONFIG_T::inner; d++) {
            #pragma HLS UNROLL
            // The codes' product, shifted by the length of the sum, then floored to the mixed format: two floors of
            // right shifts are one.
            ap_int<weighted_bits> one = 0;
            ap_uint<reciprocal_bits> two = 0;
            one.range(weighted_bits - 1, 0) = sum[d].range(weighted_bits - 1, 0);
            two.range(reciprocal_bits - 1, 0) = reciprocal.range(reciprocal_bits - 1, 0);
            const ap_int<product_bits> product = (ap_int<product_bits>)(one * two) >> shift;
            ap_fixed<product_bits, product_bits - product_frac> quotient = 0;
            quotient.range(product_bits - 1, 0) = product.range(product_bits - 1, 0);
            mixed[d] = quotient;
            NONLOCAL_TRACE("y", i * CONFIG_T::inner + d, mixed[d]);
        }
        typename sink::pixel_t result;
        for (unsigned c = 0; c < CONFIG_T::channels; c++) {
            #pragma HLS UNROLL
            const typename CONFIG_T::out_accum_t out =
                nonlocal_dot<typename CONFIG_T::out_accum_t>(mixed, out_weight + c * CONFIG_T::inner, out_bias[c]);
            NONLOCAL_TRACE("o", i * CONFIG_T::channels + c, out);
            result[c] = out + pixel[c];
        }
        sink::write(res, i, result);
    }
}

// The block: data and res are arrays or streams (nonlocal_port), data_T and res_T the types of their elements.
template <class data_T, class res_T, class CONFIG_T>
void nonlocal(
    typename nonlocal_port<data_T, CONFIG_T, CONFIG_T::io_type>::port_t data,
    typename nonlocal_port<res_T, CONFIG_T, CONFIG_T::io_type>::port_t res,
    const typename CONFIG_T::theta_weight_t theta_weight[CONFIG_T::inner * CONFIG_T::channels],
    const typename CONFIG_T::theta_bias_t theta_bias[CONFIG_T::inner],
    const typename CONFIG_T::phi_weight_t phi_weight[CONFIG_T::inner * CONFIG_T::channels],
    const typename CONFIG_T::phi_bias_t phi_bias[CONFIG_T::inner],
    const typename CONFIG_T::g_weight_t g_weight[CONFIG_T::inner * CONFIG_T::channels],
    const typename CONFIG_T::g_bias_t g_bias[CONFIG_T::inner],
    const typename CONFIG_T::out_weight_t out_weight[CONFIG_T::channels * CONFIG_T::inner],
    const typename CONFIG_T::out_bias_t out_bias[CONFIG_T::channels],
    const typename CONFIG_T::exp_table_t exp_table[CONFIG_T::exp_entries],
    const typename CONFIG_T::reciprocal_table_t reciprocal_table[1 << CONFIG_T::reciprocal_index_bits]) {
    typedef nonlocal_shape<data_T, CONFIG_T> shape;
    // The processes overlap, over patches too: the next patch's keys are made while this one's rows are worked on.
    #pragma HLS DATAFLOW
    typename CONFIG_T::key_t keys[shape::groups][CONFIG_T::parallel][CONFIG_T::inner];
    typename CONFIG_T::value_t values[shape::groups][CONFIG_T::parallel][CONFIG_T::inner];
    // `parallel` whole keys and values are read in a cycle: one bank for each number, as deep as there are groups.
    #pragma HLS ARRAY_PARTITION variable=keys complete dim=2
    #pragma HLS ARRAY_PARTITION variable=keys complete dim=3
    #pragma HLS ARRAY_PARTITION variable=values complete dim=2
    #pragma HLS ARRAY_PARTITION variable=values complete dim=3
    hls::stream<typename shape::pixel_t> pixels("pixels");
    hls::stream<typename shape::queries_t> queries("queries");
    hls::stream<typename shape::scores_t> scores("scores");
    hls::stream<typename CONFIG_T::score_t> maxima("maxima");
    hls::stream<typename shape::weighted_t> weighted("weighted");
    hls::stream<typename CONFIG_T::total_t> totals("totals");
    #pragma HLS STREAM variable=pixels depth=shape::waiting
    #pragma HLS STREAM variable=queries depth=shape::waiting
    #pragma HLS STREAM variable=scores depth=shape::score_waiting
    #pragma HLS STREAM variable=maxima depth=shape::row_waiting
    #pragma HLS STREAM variable=weighted depth=shape::row_waiting
    #pragma HLS STREAM variable=totals depth=shape::row_waiting
    nonlocal_project<data_T, CONFIG_T>(data, pixels, queries, keys, values, theta_weight, theta_bias, phi_weight,
                                       phi_bias, g_weight, g_bias);
    nonlocal_score<data_T, CONFIG_T>(queries, keys, scores, maxima);
    nonlocal_weigh<data_T, CONFIG_T>(scores, maxima, values, exp_table, weighted, totals);
    nonlocal_merge<data_T, res_T, CONFIG_T>(weighted, totals, pixels, res, reciprocal_table, out_weight, out_bias);
}

} // namespace nnet

#endif
