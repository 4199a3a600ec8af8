/* What attention does with a block of tokens. The order of each sum is the same for a row alone and for rows together. */
#pragma once

#include <math.h>

#include "attention.h"

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

/* The largest of `count` floats, whole blocks. */
INLINE float largest(const float *values, int64_t count) {
    __m512 highest[ABREAST];
    for (int i = 0; i < ABREAST; i++) highest[i] = _mm512_set1_ps(-INFINITY);
    int64_t at = 0;
    for (; at + ABREAST * BLOCK <= count; at += ABREAST * BLOCK)
        for (int i = 0; i < ABREAST; i++)
            highest[i] = _mm512_max_ps(highest[i], _mm512_loadu_ps(values + at + i * BLOCK));
    for (; at < count; at += BLOCK) highest[0] = _mm512_max_ps(highest[0], _mm512_loadu_ps(values + at));
    for (int i = 1; i < ABREAST; i++) highest[0] = _mm512_max_ps(highest[0], highest[i]);
    return _mm512_reduce_max_ps(highest[0]);
}

/* `num_blocks` blocks of scores become weights, those of tokens from `count` on zero; adds them to `total`. */
INLINE __m512 weigh_blocks(float *scores, int64_t at, int64_t count, int num_blocks, __m512 highest, __m512 scale,
                           __m512 total) {
    __m512 weights[ABREAST];
    for (int i = 0; i < num_blocks; i++)
        weights[i] = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(scores + at + i * BLOCK), highest), scale);
    exponentials(weights, num_blocks);
    if (count - at < BLOCK) weights[0] = _mm512_maskz_mov_ps((__mmask16)((1u << (count - at)) - 1), weights[0]);
    for (int i = 0; i < num_blocks; i++) {
        total = _mm512_add_ps(total, weights[i]);
        store((bf16 *)scores + at + i * BLOCK, weights[i]);
    }
    return total;
}

/* `count` scores become weights in bfloat16, in place, up to a whole block; returns 1 / their sum. */
static inline float weigh(float *scores, int64_t count, float scale) {
    int64_t whole = weights_of_head(count - 1), at = 0;
    for (int64_t i = count; i < whole; i++) scores[i] = -INFINITY;
    __m512 highest = _mm512_set1_ps(largest(scores, whole)), factor = _mm512_set1_ps(scale);
    __m512 total = _mm512_setzero_ps();
    for (; at + ABREAST * BLOCK <= count; at += ABREAST * BLOCK)
        total = weigh_blocks(scores, at, count, ABREAST, highest, factor, total);
    for (; at < whole; at += BLOCK) total = weigh_blocks(scores, at, count, 1, highest, factor, total);
    return 1.0f / _mm512_reduce_add_ps(total);
}

/* sums [num_heads][2] of 32 dimensions += two tokens' weights @ values. A vector's lanes are dimensions 0-3, 8-11, 16-19,
 * 24-27 and the others: as interleaving two tokens leaves them. */
INLINE void add_pair(__m512 sums[][2], const bf16 *weights, int64_t stride, int num_heads, const bf16 *first,
                     const bf16 *second) {
    __m512i even = _mm512_loadu_si512(first), odd = _mm512_loadu_si512(second);
    __m512bh low = (__m512bh)_mm512_unpacklo_epi16(even, odd), high = (__m512bh)_mm512_unpackhi_epi16(even, odd);
    for (int head = 0; head < num_heads; head++) {
        __m512bh pair = repeat_pair(weights + head * stride);
        sums[head][0] = _mm512_dpbf16_ps(sums[head][0], low, pair);
        sums[head][1] = _mm512_dpbf16_ps(sums[head][1], high, pair);
    }
}

/* 32 dimensions of a head's mean, of sums in the order that `add_pair` leaves them in. */
INLINE void store_mean(bf16 *to, const __m512 *sums, float factor) {
    const __m512i in_order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    __m512 factors = _mm512_set1_ps(factor);
    __m512bh mean = _mm512_cvtne2ps_pbh(_mm512_mul_ps(sums[1], factors), _mm512_mul_ps(sums[0], factors));
    _mm512_storeu_si512(to, _mm512_permutexvar_epi64(in_order, (__m512i)mean));
}
