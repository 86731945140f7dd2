// Maximum-likelihood pseudo-Voigt fits on a GPU, one peak a thread: the model, statistics, steps and rule of convergence
// of kernel.cpp, which has the comments on them. A thread never looks at another one.
//
// Compiled at run time (NVRTC) by braggnn_edge/fit/device_kernel.py, with -DORDER=<quadrature order>. g++ compiles the
// same file for a CPU, where a loop stands for the threads: so that what runs on a GPU is tested without one. All
// arguments are pointers, and arrays have the peaks in their last dimension, so that threads read side by side.

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define DEVICE __device__ __forceinline__
#else
#include <cmath>
#define DEVICE inline
#define __global__
#endif

#define LN16 2.772588722239781
#define HALF_PI 1.5707963267948966
#define PI 3.141592653589793

enum { ROW, COL, AMPLITUDE, MAJOR, MINOR, TILT, ETA, BACKGROUND, P };

// Every literal in the float32 pass has to be one: arithmetic in float64 is slow on most cards.
template <typename T> struct Num;

template <> struct Num<float> {
    static constexpr float pivot = 1e-7f, tiny = 1e-30f, refuse = 1e-6f, lowest = -87.0f, largest = 3e38f;
    static DEVICE float exp(float x) { return expf(x); }
    static DEVICE float log(float x) { return logf(x); }
    static DEVICE float log1p(float x) { return log1pf(x); }
    static DEVICE float sqrt(float x) { return sqrtf(x); }
    static DEVICE float sin(float x) { return sinf(x); }
    static DEVICE float cos(float x) { return cosf(x); }
    static DEVICE float sinh(float x) { return sinhf(x); }
    static DEVICE float atan2(float y, float x) { return atan2f(y, x); }
    static DEVICE float erfc(float x) { return erfcf(x); }
};

template <> struct Num<double> {
    static constexpr double pivot = 1e-14, tiny = 1e-300, refuse = 1e-12, lowest = -708.0, largest = 1e308;
    static DEVICE double exp(double x) { return ::exp(x); }
    static DEVICE double log(double x) { return ::log(x); }
    static DEVICE double log1p(double x) { return ::log1p(x); }
    static DEVICE double sqrt(double x) { return ::sqrt(x); }
    static DEVICE double sin(double x) { return ::sin(x); }
    static DEVICE double cos(double x) { return ::cos(x); }
    static DEVICE double sinh(double x) { return ::sinh(x); }
    static DEVICE double atan2(double y, double x) { return ::atan2(y, x); }
    static DEVICE double erfc(double x) { return ::erfc(x); }
};

template <typename T> DEVICE T larger(T a, T b) { return a > b ? a : b; }
template <typename T> DEVICE T smaller(T a, T b) { return a < b ? a : b; }

// exp(x^2) erfc(x) for x >= -6: where erfc would underflow, its continued fraction, cut after five terms.
template <typename T> DEVICE T erfcx_of(T x) {
    if (x < T(5)) return Num<T>::exp(x * x) * Num<T>::erfc(x);
    T fraction = x;
#pragma unroll
    for (int k = 10; k > 0; --k) fraction = x + T(0.5) * T(k) / fraction;
    return T(0.5641895835477563) / fraction;
}

struct Task {
    const double* data;          // (pixels, count)
    const unsigned char* kind;   // (pixels, count): 0 unused, 1 data, 2 below the level of zero suppression
    const double *low, *high;    // (P, count)
    const double *nodes, *weights;
    double gain, variance, floor;  // floor 0: none
    long long count, at;
    int height, width;
};

template <typename T> struct Peak {
    T state[P], trial[P], slope[P], curvature[P][P];  // the upper triangle
    T cost, predicted, damping, chi2, squares;
    bool frozen[P], fresh, done;
};

template <typename T> DEVICE void evaluate(const Task& task, Peak<T>& peak) {
    const T gain = T(task.gain), variance_read = T(task.variance), floor = T(task.floor);
    const T sigma = Num<T>::sqrt(gain * floor + variance_read);
    T node[ORDER], share[ORDER];
#pragma unroll
    for (int i = 0; i < ORDER; ++i) node[i] = T(task.nodes[i]), share[i] = T(task.weights[i]);
    const T *t = peak.trial;
    const T cos = Num<T>::cos(t[TILT]), sin = Num<T>::sin(t[TILT]);
    const T u_col = cos / t[MAJOR], u_row = sin / t[MAJOR], v_col = -sin / t[MINOR], v_row = cos / t[MINOR];
    const T half = Num<T>::log(t[MAJOR] / t[MINOR]);
    const T shear = (half < T(0) ? -half : half) < T(1e-4) ? T(1) + half * half / T(6) : Num<T>::sinh(half) / half;
    const T gauss_share = T(1) - t[ETA], gauss_slope = gauss_share * T(-LN16), lorentz_slope = t[ETA] * T(-4);
    T cost = 0, chi2 = 0, squares = 0, slope[P] = {}, curvature[P][P] = {};
    long long place = task.at;
    for (int row = 0; row < task.height; ++row) {
        for (int col = 0; col < task.width; ++col, place += task.count) {
            const int kind = task.kind[place];
            if (kind == 0) continue;
            T gauss_sum = 0, lorentz_sum = 0, fu = 0, fv = 0, fuu = 0, fuv = 0, fvv = 0;
#pragma unroll
            for (int i = 0; i < ORDER; ++i) {
                const T y = T(row) + node[i] - t[ROW];
#pragma unroll
                for (int j = 0; j < ORDER; ++j) {
                    const T weight = share[i] * share[j], x = T(col) + node[j] - t[COL];
                    const T u = u_row * y + u_col * x, v = v_row * y + v_col * x, r2 = u * u + v * v;
                    const T gauss = Num<T>::exp(larger(r2 * T(-LN16), Num<T>::lowest));
                    const T lorentz = T(1) / (r2 * T(4) + T(1));
                    gauss_sum += gauss * weight;
                    lorentz_sum += lorentz * weight;
                    const T slope_r2 = (gauss * gauss_slope + lorentz * lorentz * lorentz_slope) * weight;
                    const T su = slope_r2 * u, sv = slope_r2 * v;
                    fu += su, fv += sv, fuu += su * u, fvv += sv * v, fuv += su * v;
                }
            }
            const T unit = t[ETA] * lorentz_sum + gauss_share * gauss_sum, twice = t[AMPLITUDE] * T(-2);
            const T mean = t[AMPLITUDE] * unit + t[BACKGROUND];
            const T jacobian[P] = {
                twice * (u_row * fu + v_row * fv), twice * (u_col * fu + v_col * fv), unit, -t[AMPLITUDE] * fuu,
                -t[AMPLITUDE] * fvv, twice * shear * fuv, t[AMPLITUDE] * (lorentz_sum - gauss_sum), T(1)};
            const T variance = mean * gain + variance_read;
            T score, weight;
            if (kind == 1) {
                const T data = T(task.data[place]), difference = data - mean, shifted = data * gain + variance_read;
                const bool positive = shifted > T(0);
                const T safe = positive ? shifted : gain * gain;
                const T ratio = (positive ? difference * -gain : variance - safe) / safe;
                cost += (difference * -gain - shifted * Num<T>::log1p(ratio)) / (gain * gain);
                weight = T(1) / variance;
                score = weight * difference;
                chi2 += score * difference;
                squares += difference * difference;
            } else {
                const T z = smaller((floor - mean) / sigma, T(8)), scaled = erfcx_of(z * T(-0.7071067811865476));
                const T hazard = T(0.7978845608028654) / scaled, excess = larger(mean - floor, T(0));
                cost += z * z * T(0.5) - Num<T>::log(scaled * T(0.5));
                score = -hazard / sigma;
                weight = hazard * (hazard + z) / (sigma * sigma);
                chi2 += excess * excess / variance;
            }
#pragma unroll
            for (int i = 0; i < P; ++i) {
                slope[i] -= jacobian[i] * score;
                const T weighted = jacobian[i] * weight;
#pragma unroll
                for (int j = i; j < P; ++j) curvature[i][j] += weighted * jacobian[j];
            }
        }
    }
    const T size = cost < T(0) ? -cost : cost, fall = peak.cost - cost;
    const bool good = peak.fresh ? size < Num<T>::largest : fall >= (size + T(1)) * -Num<T>::refuse;
    const T ratio = peak.fresh ? T(0.5) : fall / larger(peak.predicted, Num<T>::tiny);
    T damping = ratio > T(0.75) ? peak.damping * T(0.2) : ratio < T(0.25) ? peak.damping * T(2) : peak.damping;
    peak.damping = larger(good ? damping : peak.damping * T(8), T(1e-10));
    if (!good) return;
    peak.fresh = false, peak.cost = cost, peak.chi2 = chi2, peak.squares = squares;
#pragma unroll
    for (int i = 0; i < P; ++i) {
        peak.state[i] = t[i], peak.slope[i] = slope[i];
#pragma unroll
        for (int j = i; j < P; ++j) peak.curvature[i][j] = curvature[i][j];
    }
}

template <typename T> DEVICE void propose(const Task& task, Peak<T>& peak, T tolerance) {
    T scale[P], solution[P], step[P], matrix[P][P];
#pragma unroll
    for (int i = 0; i < P; ++i) {
        const T low = T(task.low[i * task.count + task.at]), high = T(task.high[i * task.count + task.at]);
        peak.frozen[i] = (peak.state[i] <= low && peak.slope[i] > T(0)) ||
                         (peak.state[i] >= high && peak.slope[i] < T(0)) || low == high;
        const T diagonal = peak.curvature[i][i];
        scale[i] = peak.frozen[i] ? T(0) : T(1) / Num<T>::sqrt(diagonal > T(0) ? diagonal : T(1));
    }
#pragma unroll
    for (int i = 0; i < P; ++i) {
#pragma unroll
        for (int j = i; j < P; ++j) matrix[j][i] = peak.curvature[i][j] * (scale[i] * scale[j]);
        matrix[i][i] += peak.frozen[i] ? T(1) : peak.damping + T(1e-13);
        solution[i] = -peak.slope[i] * scale[i];
    }
#pragma unroll
    for (int k = 0; k < P; ++k) {
        const T root = Num<T>::sqrt(larger(matrix[k][k], Num<T>::pivot));
#pragma unroll
        for (int i = k; i < P; ++i) matrix[i][k] /= root;
        solution[k] /= root;
#pragma unroll
        for (int i = k + 1; i < P; ++i) {
#pragma unroll
            for (int j = k + 1; j <= i; ++j) matrix[i][j] -= matrix[i][k] * matrix[j][k];
            solution[i] -= matrix[i][k] * solution[k];
        }
    }
#pragma unroll
    for (int k = P - 1; k >= 0; --k) {
        solution[k] /= matrix[k][k];
#pragma unroll
        for (int i = 0; i < k; ++i) solution[i] -= matrix[k][i] * solution[k];
    }
    T squared = 0, along = 0;
#pragma unroll
    for (int i = 0; i < P; ++i) {
        step[i] = solution[i] * scale[i];
        squared += solution[i] * solution[i];
        along += peak.slope[i] * step[i];
        peak.trial[i] = peak.state[i] + step[i];
    }
    peak.predicted = (squared * peak.damping - along) * T(0.5);
    peak.done = peak.predicted < T(0.5) * tolerance && (peak.damping <= T(1e-2) || peak.damping > T(1e8));
    const T first = Num<T>::log(peak.state[MAJOR]) * T(2) + step[MAJOR];
    const T second = Num<T>::log(peak.state[MINOR]) * T(2) + step[MINOR];
    const T middle = (first + second) * T(0.5), half = (first - second) * T(0.5);
    const T spread = Num<T>::sqrt(half * half + step[TILT] * step[TILT]);
    peak.trial[MAJOR] = Num<T>::exp(smaller((middle + spread) * T(0.5), T(20)));
    peak.trial[MINOR] = Num<T>::exp(smaller((middle - spread) * T(0.5), T(20)));
    T tilt = peak.state[TILT] + T(0.5) * Num<T>::atan2(step[TILT], half);
    tilt = tilt > T(HALF_PI) ? tilt - T(PI) : tilt;
    peak.trial[TILT] = tilt <= T(-HALF_PI) ? tilt + T(PI) : tilt;
#pragma unroll
    for (int i = 0; i < P; ++i) {
        const T low = T(task.low[i * task.count + task.at]), high = T(task.high[i * task.count + task.at]);
        peak.trial[i] = larger(smaller(peak.trial[i], high), low);
    }
}

// From ``begin`` to where evaluations end: when the last step was negligible, or ``limit`` in all were spent.
template <typename T>
DEVICE void descend(const Task& task, Peak<T>& peak, const double* begin, double tolerance, double damping, int limit,
                    int& spent) {
#pragma unroll
    for (int i = 0; i < P; ++i) {
        peak.state[i] = peak.trial[i] = T(begin[i]), peak.slope[i] = 0;
#pragma unroll
        for (int j = i; j < P; ++j) peak.curvature[i][j] = 0;
    }
    peak.cost = peak.predicted = peak.chi2 = peak.squares = 0;
    peak.damping = T(damping), peak.fresh = true, peak.done = false;
    do {
        evaluate(task, peak);
        propose(task, peak, T(tolerance));
        ++spent;
    } while (!peak.done && spent < limit);
}

// sizes: count, height, width, evaluations a peak; numbers: gain, variance of the read noise, level of zero suppression
// (0: none). Out: state (P, count), information (P, P, count), frozen (P, count), sums (2, count): chi2 and squares,
// iterations and converged (count).
DEVICE void fit_one(long long at, const double* data, const unsigned char* kind, const long long* sizes,
                    const double* numbers, const double* nodes, const double* weights, const double* low,
                    const double* high, const double* start, double* state, double* information, unsigned char* frozen,
                    double* sums, int* iterations, unsigned char* converged) {
    const long long count = sizes[0];
    if (at >= count) return;
    const Task task{data, kind, low, high, nodes, weights, numbers[0], numbers[1], numbers[2], count, at,
                    int(sizes[1]), int(sizes[2])};
    const int limit = int(sizes[3]), few = limit * 2 / 5;
    double begin[P];
#pragma unroll
    for (int i = 0; i < P; ++i) begin[i] = start[i * count + at];
    int spent = 0;
    if (few > 0) {
        Peak<float> coarse;
        descend<float>(task, coarse, begin, 1e-6, 1e-2, few, spent);
        bool finite = true;
#pragma unroll
        for (int i = 0; i < P; ++i) {
            const float size = coarse.state[i] < 0 ? -coarse.state[i] : coarse.state[i];
            finite = finite && size < Num<float>::largest;
        }
#pragma unroll
        for (int i = 0; i < P; ++i)
            if (finite) begin[i] = larger(smaller(double(coarse.state[i]), high[i * count + at]), low[i * count + at]);
    }
    Peak<double> peak;
    descend<double>(task, peak, begin, 1e-9, 1e-5, limit, spent);
#pragma unroll
    for (int i = 0; i < P; ++i) {
        state[i * count + at] = peak.state[i];
        frozen[i * count + at] = peak.frozen[i];
#pragma unroll
        for (int j = i; j < P; ++j)
            information[(i * P + j) * count + at] = information[(j * P + i) * count + at] = peak.curvature[i][j];
    }
    sums[at] = peak.chi2, sums[count + at] = peak.squares;
    iterations[at] = spent, converged[at] = peak.done;
}

#define ARGUMENTS                                                                                                    \
    const double *data, const unsigned char *kind, const long long *sizes, const double *numbers,                    \
        const double *nodes, const double *weights, const double *low, const double *high, const double *start,      \
        double *state, double *information, unsigned char *frozen, double *sums, int *iterations,                    \
        unsigned char *converged
#define PASSED                                                                                                       \
    data, kind, sizes, numbers, nodes, weights, low, high, start, state, information, frozen, sums, iterations, converged

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
extern "C" __global__ void braggnn_fit(ARGUMENTS) {
    fit_one((long long)blockIdx.x * blockDim.x + threadIdx.x, PASSED);
}
#else
extern "C" void braggnn_fit(ARGUMENTS) {
    for (long long at = 0; at < sizes[0]; ++at) fit_one(at, PASSED);
}
#endif
