#include "attention.h"

#include <math.h>

enum { BLOCK = 64 }; /* tokens that stay in the first-level cache while every head looks at them */

INLINE float dot(const bf16 *left, const bf16 *right, int64_t head_dim) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t d = 0; d < head_dim; d += 32)
        sum = _mm512_dpbf16_ps(sum, load_pairs(left + d), load_pairs(right + d));
    return _mm512_reduce_add_ps(sum);
}

/* `count` scores become weights that sum to 1, and zeros up to a whole vector. */
static void softmax(float *scores, int64_t count, float scale) {
    int64_t whole = weights_of_head(count - 1);
    for (int64_t i = count; i < whole; i++) scores[i] = -INFINITY;
    __m512 highest = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
    for (int64_t i = 0; i < whole; i += 16) highest = _mm512_max_ps(highest, _mm512_loadu_ps(scores + i));
    highest = _mm512_set1_ps(_mm512_reduce_max_ps(highest));
    for (int64_t i = 0; i < whole; i += 16) {
        __m512 below = _mm512_sub_ps(_mm512_loadu_ps(scores + i), highest);
        __m512 weight = exponential(_mm512_mul_ps(below, _mm512_set1_ps(scale)));
        if (i + 16 > count) weight = _mm512_maskz_mov_ps((__mmask16)((1u << (count - i)) - 1), weight);
        _mm512_storeu_ps(scores + i, weight);
        total = _mm512_add_ps(total, weight);
    }
    __m512 factor = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(total));
    for (int64_t i = 0; i < whole; i += 16)
        _mm512_storeu_ps(scores + i, _mm512_mul_ps(_mm512_loadu_ps(scores + i), factor));
}

/* sums [head_dim] += weights @ values. */
INLINE void add_weighted(float *sums, const float *weights, const bf16 *values, int64_t count, int64_t head_dim) {
    for (int64_t d = 0; d < head_dim; d += 32) {
        __m512 low = _mm512_loadu_ps(sums + d), high = _mm512_loadu_ps(sums + d + 16);
        for (int64_t t = 0; t < count; t++) {
            __m512 weight = _mm512_set1_ps(weights[t]);
            low = _mm512_fmadd_ps(weight, load(values + t * head_dim + d), low);
            high = _mm512_fmadd_ps(weight, load(values + t * head_dim + d + 16), high);
        }
        _mm512_storeu_ps(sums + d, low);
        _mm512_storeu_ps(sums + d + 16, high);
    }
}

INLINE int64_t smaller(int64_t left, int64_t right) { return left < right ? left : right; }

INLINE void attend_heads(const bf16 *queries, Visible visible, int64_t num_heads, int64_t head_dim, float scale,
                         float *weights, bf16 *out) {
    int64_t cached = visible.num_cached, stride = weights_of_head(cached);
    for (int64_t start = 0; start < cached; start += BLOCK)
        for (int64_t head = 0; head < num_heads; head++)
            for (int64_t t = start; t < smaller(start + BLOCK, cached); t++)
                weights[head * stride + t] = dot(queries + head * head_dim, visible.keys + t * head_dim, head_dim);
    for (int64_t head = 0; head < num_heads; head++) {
        weights[head * stride + cached] = dot(queries + head * head_dim, visible.own_key, head_dim);
        softmax(weights + head * stride, cached + 1, scale);
    }
    float sums[num_heads * head_dim];
    memset(sums, 0, sizeof sums);
    for (int64_t start = 0; start < cached; start += BLOCK)
        for (int64_t head = 0; head < num_heads; head++)
            add_weighted(sums + head * head_dim, weights + head * stride + start, visible.values + start * head_dim,
                         smaller(BLOCK, cached - start), head_dim);
    for (int64_t head = 0; head < num_heads; head++) {
        add_weighted(sums + head * head_dim, weights + head * stride + cached, visible.own_value, 1, head_dim);
        for (int64_t d = 0; d < head_dim; d += 16)
            store(out + head * head_dim + d, _mm512_loadu_ps(sums + head * head_dim + d));
    }
}

void attend(const bf16 *queries, Visible visible, int64_t num_heads, int64_t head_dim, float scale,
            float *weights, bf16 *out) {
    switch (head_dim) { /* constants, so that the compiler unrolls */
        case 64: attend_heads(queries, visible, num_heads, 64, scale, weights, out); break;
        case 128: attend_heads(queries, visible, num_heads, 128, scale, weights, out); break;
        default: attend_heads(queries, visible, num_heads, head_dim, scale, weights, out);
    }
}
