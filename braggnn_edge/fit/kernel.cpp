// Maximum-likelihood pseudo-Voigt fits of many patches: the same statistics, model and Levenberg-Marquardt steps as
// braggnn_edge/fit/levenberg_marquardt.py (formulas and sources there and in single.py), one peak a vector lane.
//
// A lone peak is fitted twice: in float32 until it is within about a thousandth of a standard deviation, then in float64
// until the last step is negligible. Only the second pass decides.
// A lane never looks at another one, so results do not depend on the batch, its order or the number of threads.
//
// Built by braggnn_edge/fit/kernel.py. GCC's vector extension keeps it free of intrinsics. Without -ffast-math, which
// would undo the rounding tricks below.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

namespace {

// Bytes of a vector: those of the processor's registers. Wider ones would be taken apart, comparisons lane by lane.
#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
constexpr double kLn16 = 2.772588722239781;  // 4 ln 2
constexpr double kHalfPi = 1.5707963267948966;
constexpr double kPi = 3.141592653589793;
constexpr int kMaxOrder = 64;
enum Kind : std::uint8_t { kUnused = 0, kUsed = 1, kBelow = 2 };

template <typename T>
struct Simd;

template <>
struct Simd<float> {
    typedef float V __attribute__((vector_size(kBytes)));
    typedef std::int32_t M __attribute__((vector_size(kBytes)));
    static constexpr int mantissa = 23, bias = 127;
    static constexpr float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer held in the low bits
    static constexpr float lowest_exponent = -87.0f;
    static constexpr int exp_terms = 7, log_terms = 6, erfcx_terms = 13;
    static constexpr float pivot = 1e-7f, tiny = 1e-30f, refuse = 1e-6f;
};

template <>
struct Simd<double> {
    typedef double V __attribute__((vector_size(kBytes)));
    typedef std::int64_t M __attribute__((vector_size(kBytes)));
    static constexpr int mantissa = 52, bias = 1023;
    static constexpr double magic = 6755399441055744.0;  // 1.5 * 2^52
    static constexpr double lowest_exponent = -708.0;
    static constexpr int exp_terms = 13, log_terms = 12, erfcx_terms = 25;
    static constexpr double pivot = 1e-14, tiny = 1e-300, refuse = 1e-12;
};

template <typename To, typename From>
inline To bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To out;
    std::memcpy(&out, &value, sizeof(To));
    return out;
}

// Chebyshev coefficients of (1 + 2 x) erfcx(x) in y = (x - 3) / (x + 3), x >= 0: relative error below 5e-15 with 25
// terms, 3e-9 with 13 (made and checked by tests/test_braggnn_edge_fit_kernel.py against scipy.special.erfcx).
constexpr double kErfcx25[25] = {
    1.17756257419656007e+00, 5.35390453961561048e-03, -9.37755034228420076e-02, 5.43665255574433473e-02,
    -1.89765967078452530e-02, 4.45342606146270897e-03, -6.33553171055283677e-04, 1.76617195231470733e-05,
    1.28415328642493864e-05, -2.00722856608963101e-06, -1.80752278725541720e-07, 7.54982834538411925e-08,
    1.88566863955366358e-09, -2.69951922633192494e-09, -1.46003049777703046e-11, 1.03616096018408331e-10,
    1.47641557002951083e-12, -4.27724080125640709e-12, -2.07237753294257742e-13, 1.81407822106385082e-13,
    1.95121690234324485e-14, -7.20720658225520940e-15, -3.12339540550370767e-15, 8.29767876658351466e-17,
    -1.53976375659910814e-15,
};
constexpr double kErfcx13[13] = {
    1.17756257419656030e+00, 5.35390453961564431e-03, -9.37755034228425488e-02, 5.43665255574429934e-02,
    -1.89765967078439277e-02, 4.45342606146979965e-03, -6.33553171075370582e-04, 1.76617193418789665e-05,
    1.28415330711975399e-05, -2.00722428841361046e-06, -1.80753755064576220e-07, 7.53946673858306188e-08,
    1.90027006450567177e-09,
};

template <typename T>
struct Math {
    using S = Simd<T>;
    using V = typename S::V;
    using M = typename S::M;
    static constexpr int lanes = kBytes / sizeof(T);

    static V all(double value) { return V{} + static_cast<T>(value); }
    static V max(V a, V b) { return a > b ? a : b; }
    static V min(V a, V b) { return a < b ? a : b; }

    template <typename F>
    static V each(V x, F function) {
        V out;
        for (int i = 0; i < lanes; ++i) out[i] = static_cast<T>(function(static_cast<double>(x[i])));
        return out;
    }

    static V sqrt(V x) {
        V out;
        for (int i = 0; i < lanes; ++i) out[i] = std::sqrt(x[i]);
        return out;
    }

    // exp of x <= about 40: x = n ln 2 + r, Taylor's series in |r| <= 0.35, exponent put in by its bits.
    static V exp(V x) {
        x = max(x, all(S::lowest_exponent));
        const V shifted = x * static_cast<T>(1.4426950408889634) + S::magic;
        const V n = shifted - S::magic;
        V r = x - n * static_cast<T>(0.693145751953125);
        r = r - n * static_cast<T>(1.4286068203094173e-06);
        double factorial = 1.0;
        for (int k = 2; k <= S::exp_terms; ++k) factorial *= k;
        V sum = all(1.0 / factorial);
#pragma GCC unroll 16
        for (int k = S::exp_terms; k > 0; --k) {
            factorial /= k;
            sum = sum * r + static_cast<T>(1.0 / factorial);
        }
        const M scale = (bits<M>(shifted) + S::bias) << S::mantissa;
        return sum * bits<V>(scale);
    }

    // log(1 + x) for x > -1, accurate for small x: 2 atanh(f / (2 + f)) of the mantissa's excess f.
    static V log1p(V x) {
        const V y = x + static_cast<T>(1);
        const M raw = bits<M>(y);
        M exponent = (raw >> S::mantissa) - S::bias;
        const M one = bits<M>(all(1.0));
        V fraction = bits<V>((raw & (((M{} + 1) << S::mantissa) - 1)) | one);
        const M high = fraction > static_cast<T>(1.4142135623730951);
        fraction = high ? fraction * static_cast<T>(0.5) : fraction;
        exponent = exponent - high;  // a true comparison is -1
        const V f = exponent == 0 ? x : fraction - static_cast<T>(1);
        const V s = f / (f + static_cast<T>(2));
        const V s2 = s * s;
        V sum = all(1.0 / (2 * S::log_terms - 1));
#pragma GCC unroll 16
        for (int k = S::log_terms - 1; k > 0; --k) sum = sum * s2 + static_cast<T>(1.0 / (2 * k - 1));
        return s * sum * static_cast<T>(2) + __builtin_convertvector(exponent, V) * static_cast<T>(0.6931471805599453);
    }

    static V log(V x) { return log1p(x - static_cast<T>(1)); }

    // exp(x^2) erfc(x) for x >= -6.
    static V erfcx(V x) {
        const V a = x < static_cast<T>(0) ? -x : x;
        const V y = (a - static_cast<T>(3)) / (a + static_cast<T>(3));
        const V twice = y + y;
        V b1{}, b2{};
        const double* c = sizeof(T) == 8 ? kErfcx25 : kErfcx13;
        for (int k = S::erfcx_terms - 1; k > 0; --k) {
            const V b0 = twice * b1 - b2 + static_cast<T>(c[k]);
            b2 = b1;
            b1 = b0;
        }
        const V positive = (y * b1 - b2 + static_cast<T>(c[0])) / (a + a + static_cast<T>(1));
        return x < static_cast<T>(0) ? exp(x * x) * static_cast<T>(2) - positive : positive;
    }

    static bool any(M mask) {
        for (int i = 0; i < lanes; ++i)
            if (mask[i]) return true;
        return false;
    }
};

// What all fits of a call share. Arrays over patches are C-ordered, the patch first.
struct Work {
    const double* data;        // (n, pixels)
    const std::uint8_t* kind;  // (n, pixels) Kind
    std::int64_t count;
    int height, width;
    double gain, variance, floor;  // floor <= 0: none
    const double* low;             // (n, parameters)
    const double* high;
    const double* start;
    int max_iterations;
    double* state;         // (n, parameters)
    double* information;   // (n, parameters, parameters)
    std::uint8_t* frozen;  // (n, parameters)
    double* sums;          // (n, 2): chi2, sum of squares
    std::int64_t* iterations;
    std::uint8_t* converged;

    int pixels() const { return height * width; }
};

struct Quadrature {
    int order;
    double nodes[kMaxOrder], weights[kMaxOrder];
};

// Peaks in flight. K peaks share a patch and its background; parameters are those of
// pseudo_voigt.PARAMETERS without the background for each peak, then the background.
template <typename T, int K>
class Lanes {
    using X = Math<T>;
    using V = typename X::V;
    using M = typename X::M;
    static constexpr int L = X::lanes;
    static constexpr int P = 7 * K + 1;
    enum { kRow, kCol, kAmplitude, kMajor, kMinor, kTilt, kEta };

  public:
    Lanes(const Work& work, const Quadrature& quadrature, double tolerance, double damping, bool last)
        : work_(work), quadrature_(quadrature), tolerance_(tolerance), start_damping_(damping), last_(last),
          data_(work.pixels()), used_(work.pixels()), below_(work.pixels()) {}

    // Fit patches first .. stop - 1. ``begin`` (stop - first, P) is where they start; it ends as where they got to.
    // ``spent`` (stop - first) counts evaluations, over both passes.
    void run(std::int64_t first, std::int64_t stop, double* begin, std::int64_t* spent, int limit) {
        first_ = first;
        stop_ = stop;
        next_ = first;
        begin_ = begin;
        spent_ = spent;
        limit_ = limit;
        for (int lane = 0; lane < L; ++lane) vacate(lane);
        int busy = 0;
        for (int lane = 0; lane < L; ++lane) busy += load(lane);
        while (busy) {
            evaluate();
            propose();
            for (int lane = 0; lane < L; ++lane) {
                if (index_[lane] < 0) continue;
                const std::int64_t place = index_[lane] - first_;
                ++spent_[place];
                if (!done_[lane] && spent_[place] < limit_) continue;
                store(lane);
                vacate(lane);
                busy += load(lane) - 1;
            }
        }
    }

  private:
    // A vacant lane holds a dull but finite peak.
    void vacate(int lane) {
        index_[lane] = -1;
        for (int p = 0; p < work_.pixels(); ++p) data_[p][lane] = used_[p][lane] = below_[p][lane] = 0;
        for (int k = 0; k < P; ++k) {
            const double idle = k == P - 1 ? 1.0 : k % 7 == kEta ? 0.5 : k % 7 >= kAmplitude && k % 7 <= kMinor ? 1.0 : 0.0;
            low_[k][lane] = high_[k][lane] = state_[k][lane] = trial_[k][lane] = static_cast<T>(idle);
        }
        reset(lane);
    }

    void reset(int lane) {
        cost_[lane] = std::numeric_limits<T>::infinity();
        predicted_[lane] = 0;
        damping_[lane] = static_cast<T>(start_damping_);
    }

    int load(int lane) {
        if (next_ >= stop_) return 0;
        const std::int64_t at = next_++;
        index_[lane] = at;
        const int pixels = work_.pixels();
        const double* data = work_.data + at * pixels;
        const std::uint8_t* kind = work_.kind + at * pixels;
        for (int p = 0; p < pixels; ++p) {
            data_[p][lane] = static_cast<T>(kind[p] == kUnused ? 0.0 : data[p]);
            used_[p][lane] = static_cast<T>(kind[p] == kUsed);
            below_[p][lane] = static_cast<T>(kind[p] == kBelow);
        }
        for (int k = 0; k < P; ++k) {
            low_[k][lane] = static_cast<T>(work_.low[at * P + k]);
            high_[k][lane] = static_cast<T>(work_.high[at * P + k]);
            state_[k][lane] = trial_[k][lane] = static_cast<T>(begin_[(at - first_) * P + k]);
        }
        reset(lane);
        return 1;
    }

    void store(int lane) {
        const std::int64_t at = index_[lane];
        double* state = begin_ + (at - first_) * P;
        if (!last_) {
            bool finite = true;
            for (int k = 0; k < P; ++k) finite = finite && std::isfinite(state_[k][lane]);
            // Rounding to float32 must not carry a parameter over its bound.
            for (int k = 0; finite && k < P; ++k)
                state[k] = std::clamp(static_cast<double>(state_[k][lane]), work_.low[at * P + k], work_.high[at * P + k]);
            return;
        }
        for (int k = 0; k < P; ++k) {
            work_.state[at * P + k] = state_[k][lane];
            work_.frozen[at * P + k] = frozen_[k][lane] != 0;
            for (int j = k; j < P; ++j)
                work_.information[(at * P + k) * P + j] = work_.information[(at * P + j) * P + k] = curvature_[k][j][lane];
        }
        work_.sums[2 * at] = chi2_[lane];
        work_.sums[2 * at + 1] = squares_[lane];
        work_.iterations[at] = spent_[at - first_];
        work_.converged[at] = done_[lane] != 0;
    }

    void evaluate() {
        const T gain = static_cast<T>(work_.gain), variance_read = static_cast<T>(work_.variance);
        const T floor = static_cast<T>(work_.floor);
        const bool censored = work_.floor > 0;
        const T sigma = static_cast<T>(std::sqrt(work_.gain * std::max(work_.floor, 0.0) + work_.variance));
        const int order = quadrature_.order;
        V u_row[K], u_col[K], v_row[K], v_col[K], shear[K], gauss_share[K], gauss_slope[K], lorentz_slope[K];
        for (int k = 0; k < K; ++k) {
            const V* t = trial_ + 7 * k;
            const V cos = X::each(t[kTilt], [](double a) { return std::cos(a); });
            const V sin = X::each(t[kTilt], [](double a) { return std::sin(a); });
            const V major = T(1) / t[kMajor], minor = T(1) / t[kMinor];
            u_col[k] = cos * major;
            u_row[k] = sin * major;
            v_col[k] = -sin * minor;
            v_row[k] = cos * minor;
            // Divided difference of exp between the logarithmic axes: sinh(d) / d with d = ln(major / minor).
            const V half = X::log(t[kMajor] * minor);
            shear[k] = X::each(half, [](double d) { return std::abs(d) < 1e-4 ? 1.0 + d * d / 6.0 : std::sinh(d) / d; });
            gauss_share[k] = T(1) - t[kEta];
            gauss_slope[k] = gauss_share[k] * static_cast<T>(-kLn16);
            lorentz_slope[k] = t[kEta] * T(-4);
        }
        V cost{}, chi2{}, squares{}, slope[P] = {}, curvature[P][P] = {};
        for (int row = 0; row < work_.height; ++row) {
            for (int col = 0; col < work_.width; ++col) {
                V mean = trial_[P - 1], jacobian[P];
                for (int k = 0; k < K; ++k) {
                    const V* t = trial_ + 7 * k;
                    V gauss_sum{}, lorentz_sum{}, fu{}, fv{}, fuu{}, fuv{}, fvv{};
                    for (int i = 0; i < order; ++i) {
                        const V y = static_cast<T>(row + quadrature_.nodes[i]) - t[kRow];
                        const V uy = u_row[k] * y, vy = v_row[k] * y;
                        for (int j = 0; j < order; ++j) {
                            const T weight = static_cast<T>(quadrature_.weights[i] * quadrature_.weights[j]);
                            const V x = static_cast<T>(col + quadrature_.nodes[j]) - t[kCol];
                            const V u = uy + u_col[k] * x, v = vy + v_col[k] * x;
                            const V uu = u * u, vv = v * v, r2 = uu + vv;
                            const V gauss = X::exp(r2 * static_cast<T>(-kLn16));
                            const V lorentz = T(1) / (r2 * T(4) + T(1));
                            gauss_sum += gauss * weight;
                            lorentz_sum += lorentz * weight;
                            const V slope_r2 = (gauss * gauss_slope[k] + lorentz * lorentz * lorentz_slope[k]) * weight;
                            const V su = slope_r2 * u, sv = slope_r2 * v;
                            fu += su;
                            fv += sv;
                            fuu += su * u;
                            fvv += sv * v;
                            fuv += su * v;
                        }
                    }
                    const V unit = t[kEta] * lorentz_sum + gauss_share[k] * gauss_sum;
                    mean += t[kAmplitude] * unit;
                    const V twice = t[kAmplitude] * T(-2);
                    V* d = jacobian + 7 * k;
                    d[kRow] = twice * (u_row[k] * fu + v_row[k] * fv);
                    d[kCol] = twice * (u_col[k] * fu + v_col[k] * fv);
                    d[kAmplitude] = unit;
                    d[kMajor] = -t[kAmplitude] * fuu;
                    d[kMinor] = -t[kAmplitude] * fvv;
                    d[kTilt] = twice * shear[k] * fuv;
                    d[kEta] = t[kAmplitude] * (lorentz_sum - gauss_sum);
                }
                const int p = row * work_.width + col;
                const V data = data_[p], used = used_[p], below = below_[p];
                const V difference = data - mean;
                const V variance = mean * gain + variance_read;
                const V shifted = data * gain + variance_read;
                // A pixel's half deviance, d' ln(m' / d') by log1p since the two agree near the solution. A negative
                // d' has no logarithm of its own; any positive constant in its place gives the same gradient.
                const M positive = shifted > T(0);
                const V safe = positive ? shifted : X::all(work_.gain * work_.gain);
                const V ratio = (positive ? difference * -gain : variance - safe) / safe;
                V term = (difference * -gain - shifted * X::log1p(ratio)) / (gain * gain) * used;
                V weight = used / variance;
                V score = weight * difference;
                chi2 += score * difference;
                squares += used * difference * difference;
                if (censored && X::any(below != T(0))) {
                    // The probability of being below the floor. Phi(8) is 1 in double precision.
                    const V z = X::min((floor - mean) / sigma, X::all(8.0));
                    const V scaled = X::erfcx(z * static_cast<T>(-0.7071067811865476));
                    const V hazard = static_cast<T>(0.7978845608028654) / scaled;
                    const V excess = below * X::max(mean - floor, V{});
                    term += below * (z * z * T(0.5) - X::log(scaled * T(0.5)));
                    score -= below * hazard / sigma;
                    weight += below * hazard * (hazard + z) / (sigma * sigma);
                    chi2 += excess * excess / variance;
                }
                cost += term;
                for (int i = 0; i < P - 1; ++i) {
                    slope[i] -= jacobian[i] * score;
                    const V weighted = jacobian[i] * weight;
                    for (int j = i; j < P - 1; ++j) curvature[i][j] += weighted * jacobian[j];
                    curvature[i][P - 1] += weighted;
                }
                slope[P - 1] -= score;
                curvature[P - 1][P - 1] += weight;
            }
        }
        const V fall = cost_ - cost;
        // Two costs that differ by rounding are equal: otherwise the last step is refused at random.
        const M good = fall >= ((cost < T(0) ? -cost : cost) + T(1)) * -Simd<T>::refuse;
        const M fresh = fall > std::numeric_limits<T>::max();
        const V share = fresh ? X::all(0.5) : fall / X::max(predicted_, X::all(Simd<T>::tiny));
        V damping = share > T(0.75) ? damping_ * T(0.2) : damping_;
        damping = share < T(0.25) ? damping * T(2) : damping;
        damping_ = X::max(good ? damping : damping_ * T(8), X::all(1e-10));
        cost_ = good ? cost : cost_;
        chi2_ = good ? chi2 : chi2_;
        squares_ = good ? squares : squares_;
        for (int i = 0; i < P; ++i) {
            state_[i] = good ? trial_[i] : state_[i];
            slope_[i] = good ? slope[i] : slope_[i];
            for (int j = i; j < P; ++j) curvature_[i][j] = good ? curvature[i][j] : curvature_[i][j];
        }
    }

    void propose() {
        V scale[P], solution[P], matrix[P][P];
        for (int i = 0; i < P; ++i) {
            frozen_[i] = ((state_[i] <= low_[i]) & (slope_[i] > T(0))) | ((state_[i] >= high_[i]) & (slope_[i] < T(0))) |
                         (low_[i] == high_[i]);
            const V diagonal = curvature_[i][i];
            scale[i] = T(1) / X::sqrt(diagonal > T(0) ? diagonal : X::all(1.0));
            scale[i] = frozen_[i] ? V{} : scale[i];
        }
        // Marquardt's scaling: after the division by the diagonal the damping is a multiple of the identity.
        for (int i = 0; i < P; ++i) {
            for (int j = i; j < P; ++j) matrix[j][i] = curvature_[i][j] * (scale[i] * scale[j]);
            matrix[i][i] += frozen_[i] ? X::all(1.0) : damping_ + static_cast<T>(1e-13);
            solution[i] = -slope_[i] * scale[i];
        }
        // Cholesky, in the lower triangle.
        for (int k = 0; k < P; ++k) {
            const V root = X::sqrt(X::max(matrix[k][k], X::all(Simd<T>::pivot)));
            for (int i = k; i < P; ++i) matrix[i][k] = matrix[i][k] / root;
            solution[k] = solution[k] / root;
            for (int i = k + 1; i < P; ++i) {
                for (int j = k + 1; j <= i; ++j) matrix[i][j] -= matrix[i][k] * matrix[j][k];
                solution[i] -= matrix[i][k] * solution[k];
            }
        }
        for (int k = P - 1; k >= 0; --k) {
            solution[k] = solution[k] / matrix[k][k];
            for (int i = 0; i < k; ++i) solution[i] -= matrix[k][i] * solution[k];
        }
        V squared{}, along{}, step[P];
        for (int i = 0; i < P; ++i) {
            step[i] = solution[i] * scale[i];
            squared += solution[i] * solution[i];
            along += slope_[i] * step[i];
        }
        predicted_ = (squared * damping_ - along) * T(0.5);
        move(step);
        done_ = (predicted_ < static_cast<T>(0.5 * tolerance_)) & ((damping_ <= T(1e-2)) | (damping_ > T(1e8)));
    }

    // The trial after a step in local coordinates, with the major axis the longer one, inside the bounds.
    void move(const V* step) {
        for (int k = 0; k < K; ++k) {
            const V *from = state_ + 7 * k, *by = step + 7 * k;
            V* to = trial_ + 7 * k;
            for (int i : {kRow, kCol, kAmplitude, kEta}) to[i] = from[i] + by[i];
            const V first = X::log(from[kMajor]) * T(2) + by[kMajor], second = X::log(from[kMinor]) * T(2) + by[kMinor];
            const V middle = (first + second) * T(0.5), half = (first - second) * T(0.5), across = by[kTilt];
            const V spread = X::sqrt(half * half + across * across);
            // A step of e^20 in a width is beyond every bound, and its exponential still a number.
            to[kMajor] = X::exp(X::min((middle + spread) * T(0.5), X::all(20.0)));
            to[kMinor] = X::exp(X::min((middle - spread) * T(0.5), X::all(20.0)));
            V tilt;
            for (int lane = 0; lane < L; ++lane)
                tilt[lane] = from[kTilt][lane] + T(0.5) * static_cast<T>(std::atan2(across[lane], half[lane]));
            tilt = tilt > static_cast<T>(kHalfPi) ? tilt - static_cast<T>(kPi) : tilt;
            to[kTilt] = tilt <= static_cast<T>(-kHalfPi) ? tilt + static_cast<T>(kPi) : tilt;
        }
        trial_[P - 1] = state_[P - 1] + step[P - 1];
        for (int i = 0; i < P; ++i) trial_[i] = X::max(X::min(trial_[i], high_[i]), low_[i]);
    }

    const Work& work_;
    const Quadrature& quadrature_;
    const double tolerance_, start_damping_;
    const bool last_;
    std::vector<V> data_, used_, below_;
    V low_[P], high_[P], state_[P], trial_[P], slope_[P] = {}, curvature_[P][P] = {};
    V cost_, predicted_, damping_, chi2_ = {}, squares_ = {};
    M frozen_[P], done_;
    std::int64_t index_[L], first_ = 0, stop_ = 0, next_ = 0;
    double* begin_ = nullptr;
    std::int64_t* spent_ = nullptr;
    int limit_ = 0;
};

// Stop when the next step would lower the deviance by less: about 3e-5 of a standard deviation, 1e-3 in float32.
constexpr double kTolerance = 1e-9, kCoarse = 1e-6;
constexpr int kBlock = 512;

template <int K>
void fit_blocks(const Work& work, const Quadrature& quadrature, std::atomic<std::int64_t>& next) {
    constexpr int P = 7 * K + 1;
    // Joint fits are few, and their float32 pass would double the time of compilation.
    constexpr bool twice = K == 1;
    Lanes<double, K> second(work, quadrature, kTolerance, twice ? 1e-5 : 1e-2, true);
    std::vector<double> begin(kBlock * P);
    std::vector<std::int64_t> spent(kBlock);
    for (;;) {
        const std::int64_t from = next.fetch_add(kBlock);
        if (from >= work.count) return;
        const std::int64_t to = std::min(work.count, from + kBlock);
        std::copy(work.start + from * P, work.start + to * P, begin.begin());
        std::fill(spent.begin(), spent.end(), 0);
        if constexpr (twice) {
            Lanes<float, K> first(work, quadrature, kCoarse, 1e-2, false);
            // The pass that decides keeps most evaluations: a flat valley that float32 cannot see the end of needs them.
            const int few = work.max_iterations * 2 / 5;
            if (few > 0) first.run(from, to, begin.data(), spent.data(), few);
        }
        second.run(from, to, begin.data(), spent.data(), work.max_iterations);
    }
}

}  // namespace

extern "C" {

// Fit ``count`` patches of K peaks each; arrays as in Work, quadrature nodes in (-0.5, 0.5). Returns 0, or 1 for K out
// of 1 to 6 or an order out of 1 to 64, or 2 when memory is short. No exception leaves it.
int braggnn_fit(const double* data, const std::uint8_t* kind, std::int64_t count, int height, int width, int peaks,
                double gain, double variance, double floor, int order, const double* nodes, const double* weights,
                const double* low, const double* high, const double* start, int max_iterations, int threads, double* state,
                double* information, std::uint8_t* frozen, double* sums, std::int64_t* iterations,
                std::uint8_t* converged) {
    if (peaks < 1 || peaks > 6 || order < 1 || order > kMaxOrder) return 1;
    const Work work{data, kind, count, height, width, gain, variance, floor, low, high, start, max_iterations,
                    state, information, frozen, sums, iterations, converged};
    Quadrature quadrature{order, {}, {}};
    std::copy(nodes, nodes + order, quadrature.nodes);
    std::copy(weights, weights + order, quadrature.weights);
    std::atomic<std::int64_t> next{0};
    std::atomic<int> failed{0};
    auto job = [&] {
        try {
            switch (peaks) {
                case 1: fit_blocks<1>(work, quadrature, next); break;
                case 2: fit_blocks<2>(work, quadrature, next); break;
                case 3: fit_blocks<3>(work, quadrature, next); break;
                case 4: fit_blocks<4>(work, quadrature, next); break;
                case 5: fit_blocks<5>(work, quadrature, next); break;
                case 6: fit_blocks<6>(work, quadrature, next); break;
            }
        } catch (...) {  // of all that is called only the vectors throw
            failed = 2;
        }
    };
    std::vector<std::thread> helpers;
    try {
        for (int i = 1; i < threads; ++i) helpers.emplace_back(job);
    } catch (...) {  // fewer threads than asked for do the same work
    }
    job();
    for (auto& helper : helpers) helper.join();
    return failed;
}

// For the tests: exp, log1p and erfcx of n values as the fit computes them, in float64 (wide = 1) or float32.
void braggnn_fit_function(int which, int wide, std::int64_t count, const double* in, double* out) {
    auto apply = [&](auto zero) {
        using X = Math<decltype(zero)>;
        for (std::int64_t i = 0; i < count; ++i) {
            const auto x = X::all(in[i]);
            out[i] = (which == 0 ? X::exp(x) : which == 1 ? X::log1p(x) : X::erfcx(x))[0];
        }
    };
    wide ? apply(0.0) : apply(0.0f);
}
}
