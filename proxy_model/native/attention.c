#include "attention.h"

#include <math.h>

enum { MOST_HEADS = 8 /* whose sums fit the registers together */ };

/* The tokens of a block: in the cache, or copied together where the block holds the row's own, and then only that. */
INLINE const bf16 *tokens_of(const bf16 *cached, const bf16 *own, int64_t start, int64_t num_cached, int64_t head_dim,
                             bf16 *together) {
    if (start + BLOCK <= num_cached) return cached + start * head_dim;
    for (int64_t t = 0; t < BLOCK; t++) {
        const bf16 *from = start + t < num_cached ? cached + (start + t) * head_dim : own;
        memcpy(together + t * head_dim, from, head_dim * sizeof(bf16));
    }
    return together;
}

/* The sums of 16 vectors' lanes, in order: pairs, then fours, then eights of vectors are folded into each other. */
INLINE __m512 sums_of_lanes(__m512 *v) {
    for (int i = 0; i < 8; i++)
        v[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; i++) {
        __m512d low = _mm512_castps_pd(v[2 * i]), high = _mm512_castps_pd(v[2 * i + 1]);
        v[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)));
    }
    for (int i = 0; i < 2; i++)
        v[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(v[0], v[1], 0x88), _mm512_shuffle_f32x4(v[0], v[1], 0xdd));
}

/* The scores of a block's tokens, unscaled. */
INLINE __m512 scores_of(const bf16 *query, const bf16 *keys, int64_t head_dim) {
    __m512 products[BLOCK];
    for (int t = 0; t < BLOCK; t++) products[t] = _mm512_setzero_ps();
    for (int64_t d = 0; d < head_dim; d += 32) {
        __m512bh part = load_pairs(query + d);
        for (int t = 0; t < BLOCK; t++)
            products[t] = _mm512_dpbf16_ps(products[t], part, load_pairs(keys + t * head_dim + d));
    }
    return sums_of_lanes(products);
}

/* `count` scores become weights in bfloat16, in place, up to a whole block; returns 1 / their sum. */
static float weigh(float *scores, int64_t count, float scale) {
    int64_t whole = weights_of_head(count - 1);
    __m512 highest = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
    for (int64_t i = count; i < whole; i++) scores[i] = -INFINITY;
    for (int64_t i = 0; i < whole; i += BLOCK) highest = _mm512_max_ps(highest, _mm512_loadu_ps(scores + i));
    highest = _mm512_set1_ps(_mm512_reduce_max_ps(highest));
    for (int64_t i = 0; i < whole; i += BLOCK) {
        __m512 below = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(scores + i), highest), _mm512_set1_ps(scale));
        __mmask16 is_token = count - i < BLOCK ? (__mmask16)((1u << (count - i)) - 1) : (__mmask16)0xffff;
        __m512 weight = _mm512_maskz_mov_ps(is_token, exponential(below));
        total = _mm512_add_ps(total, weight);
        store((bf16 *)scores + i, weight);
    }
    return 1.0f / _mm512_reduce_add_ps(total);
}

/* sums [num_heads][2] of 32 dimensions += a block's weights @ values, token pair by token pair. A vector's lanes are
 * dimensions 0-3, 8-11, 16-19, 24-27 and the others: as interleaving two tokens leaves them. */
INLINE void add_block(__m512 sums[][2], const bf16 *weights, int64_t stride, int num_heads, const bf16 *values,
                      int64_t head_dim) {
    for (int t = 0; t < BLOCK; t += 2) {
        __m512i even = _mm512_loadu_si512(values + t * head_dim), odd = _mm512_loadu_si512(values + (t + 1) * head_dim);
        __m512bh low = (__m512bh)_mm512_unpacklo_epi16(even, odd), high = (__m512bh)_mm512_unpackhi_epi16(even, odd);
        for (int head = 0; head < num_heads; head++) {
            __m512bh pair = repeat_pair(weights + head * stride + t);
            sums[head][0] = _mm512_dpbf16_ps(sums[head][0], low, pair);
            sums[head][1] = _mm512_dpbf16_ps(sums[head][1], high, pair);
        }
    }
}

/* 32 dimensions of `num_heads` heads' means. */
INLINE void average(Visible visible, const bf16 *weights, int64_t stride, const float *factors, int num_heads,
                    int64_t head_dim, int64_t d, bf16 *out) {
    __m512 sums[MOST_HEADS][2];
    bf16 together[BLOCK * MOST_DIM];
    for (int head = 0; head < num_heads; head++) sums[head][0] = sums[head][1] = _mm512_setzero_ps();
    for (int64_t start = 0; start <= visible.num_cached; start += BLOCK) {
        const bf16 *values =
            tokens_of(visible.values, visible.own_value, start, visible.num_cached, head_dim, together);
        add_block(sums, weights + start, stride, num_heads, values + d, head_dim);
    }
    const __m512i in_order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    for (int head = 0; head < num_heads; head++) {
        __m512 factor = _mm512_set1_ps(factors[head]);
        __m512bh mean = _mm512_cvtne2ps_pbh(_mm512_mul_ps(sums[head][1], factor), _mm512_mul_ps(sums[head][0], factor));
        _mm512_storeu_si512(out + head * head_dim + d, _mm512_permutexvar_epi64(in_order, (__m512i)mean));
    }
}

INLINE void attend_heads(const bf16 *queries, Visible visible, int num_heads, int64_t head_dim, float scale,
                         float *weights, bf16 *out) {
    int64_t stride = weights_of_head(visible.num_cached);
    float factors[MOST_HEADS];
    bf16 together[BLOCK * MOST_DIM];
    for (int64_t start = 0; start <= visible.num_cached; start += BLOCK) {
        const bf16 *keys = tokens_of(visible.keys, visible.own_key, start, visible.num_cached, head_dim, together);
        if (visible.is_cold)
            for (int64_t d = 0; d < BLOCK * head_dim; d += 32)
                _mm_prefetch((const char *)(visible.values + start * head_dim + d), _MM_HINT_T0);
        for (int head = 0; head < num_heads; head++)
            _mm512_storeu_ps(weights + head * stride + start, scores_of(queries + head * head_dim, keys, head_dim));
    }
    for (int head = 0; head < num_heads; head++)
        factors[head] = weigh(weights + head * stride, visible.num_cached + 1, scale);
    for (int64_t d = 0; d < head_dim; d += 32)
        average(visible, (const bf16 *)weights, 2 * stride, factors, num_heads, head_dim, d, out);
}

/* Constant numbers of heads, so that the compiler keeps all sums in registers. */
INLINE void attend_some(const bf16 *queries, Visible visible, int num_heads, int64_t head_dim, float scale,
                        float *weights, bf16 *out) {
    switch (num_heads) {
        case 1: attend_heads(queries, visible, 1, head_dim, scale, weights, out); break;
        case 2: attend_heads(queries, visible, 2, head_dim, scale, weights, out); break;
        case 3: attend_heads(queries, visible, 3, head_dim, scale, weights, out); break;
        case 4: attend_heads(queries, visible, 4, head_dim, scale, weights, out); break;
        case 5: attend_heads(queries, visible, 5, head_dim, scale, weights, out); break;
        case 6: attend_heads(queries, visible, 6, head_dim, scale, weights, out); break;
        case 7: attend_heads(queries, visible, 7, head_dim, scale, weights, out); break;
        default: attend_heads(queries, visible, 8, head_dim, scale, weights, out);
    }
}

void attend(const bf16 *queries, Visible visible, int64_t num_heads, int64_t head_dim, float scale, float *weights,
            bf16 *out) {
    for (int64_t head = 0; head < num_heads; head += MOST_HEADS) {
        int count = (int)(num_heads - head < MOST_HEADS ? num_heads - head : MOST_HEADS);
        const bf16 *of_heads = queries + head * head_dim;
        if (head_dim == 64) attend_some(of_heads, visible, count, 64, scale, weights, out + head * head_dim);
        else attend_some(of_heads, visible, count, head_dim, scale, weights, out + head * head_dim);
    }
}
