/* Vectors of 16 floats, and of 32 bfloat16 in pairs: AVX-512 with BF16 (Intel from Cooper Lake, AMD from Zen 4 on). */
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef uint16_t bf16;

/* 16 bfloat16 as floats. */
INLINE __m512 widened(__m256i narrow) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
}

INLINE __m512 load(const bf16 *from) { return widened(_mm256_loadu_si256((const __m256i *)from)); }

/* To the nearest bfloat16. */
INLINE __m256i narrowed(__m512 values) { return (__m256i)_mm512_cvtneps_pbh(values); }

INLINE void store(bf16 *to, __m512 values) { _mm256_storeu_si256((__m256i *)to, narrowed(values)); }

/* What is left of `values` when they are stored as bfloat16. */
INLINE __m512 rounded(__m512 values) { return widened(narrowed(values)); }

/* 32 bfloat16, two in every lane. */
INLINE __m512bh load_pairs(const bf16 *from) { return (__m512bh)_mm512_loadu_si512(from); }

/* Two bfloat16, repeated in every lane. */
INLINE __m512bh repeat_pair(const bf16 *from) {
    int32_t pair;
    memcpy(&pair, from, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
}

enum { ABREAST = 4 /* vectors whose exponentials are worth computing together: one waits for itself at every step */ };

/* e^x of up to ABREAST vectors, in place, relative error below 1e-6: 2^n times a polynomial of what is left of x (the
 * coefficients are Cephes'). */
INLINE void exponentials(__m512 *x, int count) {
    const float coefficients[] = {
        1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 0.5f, 1.0f, 1.0f};
    __m512 n[ABREAST], sums[ABREAST];
    for (int i = 0; i < count; i++) x[i] = _mm512_max_ps(x[i], _mm512_set1_ps(-104.0f));
    for (int i = 0; i < count; i++) n[i] = _mm512_roundscale_ps(_mm512_mul_ps(x[i], _mm512_set1_ps(1.44269504f)), 8);
    for (int i = 0; i < count; i++) x[i] = _mm512_fnmadd_ps(n[i], _mm512_set1_ps(0.693359375f), x[i]);
    for (int i = 0; i < count; i++) x[i] = _mm512_fnmadd_ps(n[i], _mm512_set1_ps(-2.12194440e-4f), x[i]);
    for (int i = 0; i < count; i++) sums[i] = _mm512_set1_ps(1.9875691500e-4f);
    for (int c = 0; c < 7; c++)
        for (int i = 0; i < count; i++) sums[i] = _mm512_fmadd_ps(sums[i], x[i], _mm512_set1_ps(coefficients[c]));
    for (int i = 0; i < count; i++) x[i] = _mm512_scalef_ps(sums[i], n[i]);
}

INLINE __m512 exponential(__m512 x) {
    exponentials(&x, 1);
    return x;
}

/* Natural logarithm of positive numbers, relative error below 1e-6 (the coefficients are Cephes'). */
INLINE __m512 logarithm(__m512 x) {
    __m512 one = _mm512_set1_ps(1.0f);
    __m512 power = _mm512_getexp_ps(x), rest = _mm512_getmant_ps(x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero);
    __mmask16 is_large = _mm512_cmp_ps_mask(rest, _mm512_set1_ps(1.41421356f), _CMP_GT_OQ);
    rest = _mm512_sub_ps(_mm512_mask_mul_ps(rest, is_large, rest, _mm512_set1_ps(0.5f)), one);
    power = _mm512_mask_add_ps(power, is_large, power, one);
    const float coefficients[] = {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                                  -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f};
    __m512 sum = _mm512_set1_ps(7.0376836292e-2f), square = _mm512_mul_ps(rest, rest);
    for (int i = 0; i < 8; i++) sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(coefficients[i]));
    sum = _mm512_mul_ps(_mm512_mul_ps(sum, rest), square);
    sum = _mm512_fmadd_ps(power, _mm512_set1_ps(-2.12194440e-4f), sum);
    sum = _mm512_fnmadd_ps(_mm512_set1_ps(0.5f), square, sum);
    return _mm512_fmadd_ps(power, _mm512_set1_ps(0.693359375f), _mm512_add_ps(rest, sum));
}

INLINE __m512 silu(__m512 x) {
    __m512 negative = _mm512_sub_ps(_mm512_setzero_ps(), x);
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), exponential(negative)));
}
