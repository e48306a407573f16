// The products of a KAN layer, done sparsely: of the M = G+K basis functions only K+1 are not zero at a point.
// Called by kan_sparse.py. Threads are those that PyTorch has already: nothing is linked, its OpenMP is found by name.
//
// Shapes: x, bent (N, I); low, scale (I); y, grad (N, O); d_weight (I, 1+M, O), and weight the same in
// chunks of outputs, (O / CHUNK, I, 1+M, CHUNK), the last one filled up. The first of the 1+M planes is that of silu.
// O is a multiple of LANES. NaN in x becomes NaN in y: no flag that forbids NaN may be used to compile this.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr int LANES = 16;      // numbers in a vector; features located at a time
constexpr int CHUNK = 128;  // outputs whose weights lie together
typedef float Vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int Int __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

constexpr int FEATURES = 4;    // whose weights for CHUNK outputs fit the smallest cache
constexpr int TOKENS = 256;    // at a time
constexpr int W_TOKENS = 512;  // the same for the gradient of the weights

struct Layer {
    const float *x, *bent, *low, *scale;
    int64_t n_in, n_out;
    int grid;
};

// What a token needs of LANES features: the cells, and the K+1 values of the basis functions alive there (or their
// slopes), then one more factor for the plane of silu.
template <int K>
struct Local {
    Vec factor[K + 2];
    int cell[LANES];

    float of(int f, int j) const { return reinterpret_cast<const float *>(factor + j)[f]; }
};

inline Vec load(const float *from, int many) {
    if (many == LANES) return *reinterpret_cast<const Vec *>(from);
    Vec out = {};
    for (int f = 0; f < many; ++f) out[f] = from[f];
    return out;
}

template <int K>
inline void locate(const Layer &l, int64_t n, int64_t first, int many, bool slopes, Local<K> &out) {
    const Vec zero = {}, one = zero + 1.0f, size = zero + static_cast<float>(l.grid);
    const Vec scale = load(l.scale + first, many);
    const Vec s = (load(l.x + n * l.n_in + first, many) - load(l.low + first, many)) * scale;
    const Vec high = s < size ? s : size, inside = s > zero ? high : zero;  // 0 for NaN
    const Int whole = __builtin_convertvector(inside, Int), most = Int{} + (l.grid - 1);
    const Int cell = whole < most ? whole : most;
    const Vec t = inside - __builtin_convertvector(cell, Vec), reach = (s - inside) * static_cast<float>(K) + t;  // NaN again for NaN
    Vec value[K + 2], lower[K + 2];
    value[0] = one;
    for (int p = 1; p <= K; ++p) {
        const Vec along = (p == K ? reach : t) * (1.0f / p);
        Vec moved = zero;
        for (int r = 0; r < p; ++r) {
            lower[r] = value[r];
            Vec stays = (static_cast<float>(r + 1) / p - along) * value[r];
            value[r] = stays + moved;
            moved = lower[r] - stays;
        }
        value[p] = moved;
    }
    for (int j = 0; j <= K; ++j)
        out.factor[j] = slopes ? ((j ? lower[j - 1] : zero) - (j < K ? lower[j] : zero)) * scale : value[j];
    out.factor[K + 1] = load(l.bent + n * l.n_in + first, many);
    *reinterpret_cast<Int *>(out.cell) = cell;
}

inline float sum(Vec v) {
    v += __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
    v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    return v[0] + v[1];
}

// V vectors of outputs, from output o on.
template <int K, int V>
inline void forward_part(const Layer &l, const float *weight, float *y, int64_t o, int64_t begin, int many, int64_t first,
                         int skip, int features, const Local<K> *local) {
    const int64_t planes = 1 + l.grid + K, row = l.n_out;
    const float *tile = weight + ((o / CHUNK * l.n_in + first) * planes) * CHUNK + o % CHUNK;
    for (int t = 0; t < many; ++t) {
        Vec *out = reinterpret_cast<Vec *>(y + (begin + t) * row + o);
        Vec total[V];
        for (int v = 0; v < V; ++v) total[v] = out[v];
        for (int f = skip; f < skip + features; ++f) {
            const float *base = tile + f * planes * CHUNK, *w = base + (1 + local[t].cell[f]) * CHUNK;
            for (int j = 0; j <= K; ++j)
                for (int v = 0; v < V; ++v) total[v] += local[t].of(f, j) * reinterpret_cast<const Vec *>(w + j * CHUNK)[v];
            for (int v = 0; v < V; ++v) total[v] += local[t].of(f, K + 1) * reinterpret_cast<const Vec *>(base)[v];
        }
        for (int v = 0; v < V; ++v) out[v] = total[v];
    }
}

template <int K, int V>
inline void slope_part(const Layer &l, const float *weight, const float *grad, int64_t o, int64_t begin, int many,
                       int64_t first, int skip, int features, const Local<K> *local, float *out) {
    const int64_t planes = 1 + l.grid + K, row = l.n_out;
    const float *tile = weight + ((o / CHUNK * l.n_in + first) * planes) * CHUNK + o % CHUNK;
    for (int t = 0; t < many; ++t) {
        const Vec *g = reinterpret_cast<const Vec *>(grad + (begin + t) * row + o);
        for (int f = skip; f < skip + features; ++f) {
            const float *base = tile + f * planes * CHUNK, *w = base + (1 + local[t].cell[f]) * CHUNK;
            Vec total = {};
            for (int v = 0; v < V; ++v) {
                Vec mixed = local[t].of(f, K + 1) * reinterpret_cast<const Vec *>(base)[v];
                for (int j = 0; j <= K; ++j) mixed += local[t].of(f, j) * reinterpret_cast<const Vec *>(w + j * CHUNK)[v];
                total += g[v] * mixed;
            }
            out[t * LANES + f] += sum(total);
        }
    }
}

template <typename Part>
inline void over_outputs(int64_t n_out, const Part &part) {
    int64_t o = 0;
    for (; o + CHUNK <= n_out; o += CHUNK) part.template operator()<CHUNK / LANES>(o);
    for (; o + 2 * LANES <= n_out; o += 2 * LANES) part.template operator()<2>(o);
    for (; o < n_out; o += LANES) part.template operator()<1>(o);
}

template <int K>
void forward(const Layer &l, const float *weight, float *y, int64_t begin, int64_t end) {
    std::vector<Local<K>> local(TOKENS);
    for (; begin < end; begin += TOKENS) {
        int many = static_cast<int>(std::min<int64_t>(TOKENS, end - begin));
        for (int64_t first = 0; first < l.n_in; first += LANES) {
            int features = static_cast<int>(std::min<int64_t>(LANES, l.n_in - first));
            for (int t = 0; t < many; ++t) locate<K>(l, begin + t, first, features, false, local[t]);
            for (int skip = 0; skip < features; skip += FEATURES)
                over_outputs(l.n_out, [&]<int V>(int64_t o) {
                    forward_part<K, V>(l, weight, y, o, begin, many, first, skip, std::min(FEATURES, features - skip), local.data());
                });
        }
    }
}

template <int K>
void slopes(const Layer &l, const float *weight, const float *grad, float *d_x, int64_t begin, int64_t end) {
    std::vector<Local<K>> local(TOKENS);
    std::vector<float> out(TOKENS * LANES);
    for (; begin < end; begin += TOKENS) {
        int many = static_cast<int>(std::min<int64_t>(TOKENS, end - begin));
        for (int64_t first = 0; first < l.n_in; first += LANES) {
            int features = static_cast<int>(std::min<int64_t>(LANES, l.n_in - first));
            std::fill(out.begin(), out.end(), 0.0f);
            for (int t = 0; t < many; ++t) locate<K>(l, begin + t, first, features, true, local[t]);
            for (int skip = 0; skip < features; skip += FEATURES)
                over_outputs(l.n_out, [&]<int V>(int64_t o) {
                    slope_part<K, V>(l, weight, grad, o, begin, many, first, skip, std::min(FEATURES, features - skip), local.data(), out.data());
                });
            for (int t = 0; t < many; ++t)
                for (int f = 0; f < features; ++f) d_x[(begin + t) * l.n_in + first + f] = out[t * LANES + f];
        }
    }
}

template <int K, int V>
inline void weight_part(const Layer &l, const float *grad, float *d_weight, int64_t o, int64_t n0, int64_t feature, int f,
                        const int *start, const int *order, const Local<K> *local) {
    const int64_t row = l.n_out;
    float *base = d_weight + feature * (1 + l.grid + K) * row + o;
    for (int cell = 0; cell < l.grid; ++cell) {
        if (start[cell] == start[cell + 1]) continue;
        Vec total[K + 2][V] = {};
        for (int at = start[cell]; at < start[cell + 1]; ++at) {
            const Local<K> &here = local[order[at]];
            const Vec *g = reinterpret_cast<const Vec *>(grad + (n0 + order[at]) * row + o);
            for (int v = 0; v < V; ++v) {
                Vec given = g[v];
                for (int j = 0; j <= K + 1; ++j) total[j][v] += here.of(f, j) * given;
            }
        }
        for (int j = 0; j <= K + 1; ++j) {
            Vec *out = reinterpret_cast<Vec *>(base + (j > K ? 0 : 1 + cell + j) * row);
            for (int v = 0; v < V; ++v) out[v] += total[j][v];
        }
    }
}

template <int K>
void weights(const Layer &l, const float *grad, float *d_weight, int64_t n_tokens, int64_t begin, int64_t end) {
    std::vector<Local<K>> local(W_TOKENS);
    std::vector<int> start(LANES * (l.grid + 1)), order(LANES * W_TOKENS), next;
    for (int64_t first = begin; first < end; first += LANES) {
        int features = static_cast<int>(std::min<int64_t>(LANES, end - first));
        for (int64_t n0 = 0; n0 < n_tokens; n0 += W_TOKENS) {
            int many = static_cast<int>(std::min<int64_t>(W_TOKENS, n_tokens - n0));
            for (int t = 0; t < many; ++t)
                locate<K>(l, n0 + t, first, features, false, local[t]);
            for (int f = 0; f < features; ++f) {  // the tokens in order of their cells
                int *s = start.data() + f * (l.grid + 1);
                std::fill(s, s + l.grid + 1, 0);
                for (int t = 0; t < many; ++t) ++s[1 + local[t].cell[f]];
                for (int cell = 0; cell < l.grid; ++cell) s[cell + 1] += s[cell];
                next.assign(s, s + l.grid);
                for (int t = 0; t < many; ++t) order[f * W_TOKENS + next[local[t].cell[f]]++] = t;
            }
            int64_t o = 0;
            auto part = [&](auto width) {
                constexpr int V = decltype(width)::value;
                for (; o + V * LANES <= l.n_out; o += V * LANES)
                    for (int f = 0; f < features; ++f)
                        weight_part<K, V>(l, grad, d_weight, o, n0, first + f, f, start.data() + f * (l.grid + 1),
                                          order.data() + f * W_TOKENS, local.data());
            };
            part(std::integral_constant<int, (K <= 3 ? 4 : 2)>{});
            part(std::integral_constant<int, 1>{});
        }
    }
}

template <typename Run>
void with_order(int order, const Run &run) {
    switch (order) {
        case 1: return run.template operator()<1>();
        case 2: return run.template operator()<2>();
        case 3: return run.template operator()<3>();
        case 4: return run.template operator()<4>();
        default: return run.template operator()<5>();
    }
}

}  // namespace

extern "C" {

// Each of these does all tokens (all features), in so many threads; every number is summed up by one of them.

void kan_forward(const float *x, const float *bent, const float *low, const float *scale, int64_t n_in, int64_t n_out,
                 int grid, int order, int64_t n_tokens, int threads, const float *weight, float *y) {
    Layer l{x, bent, low, scale, n_in, n_out, grid};
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int64_t t = 0; t < n_tokens; t += TOKENS) {
        int64_t end = std::min(n_tokens, t + TOKENS);
        with_order(order, [&]<int K>() { forward<K>(l, weight, y, t, end); });
    }
}

void kan_slopes(const float *x, const float *bent, const float *low, const float *scale, int64_t n_in, int64_t n_out,
                int grid, int order, int64_t n_tokens, int threads, const float *weight, const float *grad, float *d_x) {
    Layer l{x, bent, low, scale, n_in, n_out, grid};
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int64_t t = 0; t < n_tokens; t += TOKENS) {
        int64_t end = std::min(n_tokens, t + TOKENS);
        with_order(order, [&]<int K>() { slopes<K>(l, weight, grad, d_x, t, end); });
    }
}

void kan_weights(const float *x, const float *bent, const float *low, const float *scale, int64_t n_in, int64_t n_out,
                 int grid, int order, int64_t n_tokens, int threads, const float *grad, float *d_weight) {
    Layer l{x, bent, low, scale, n_in, n_out, grid};
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int64_t f = 0; f < n_in; f += LANES) {
        int64_t end = std::min(n_in, f + LANES);
        with_order(order, [&]<int K>() { weights<K>(l, grad, d_weight, n_tokens, f, end); });
    }
}
}
