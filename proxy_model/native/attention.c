#include "attention_blocks.h"

enum { MOST_HEADS = 8 /* whose sums fit the registers together */ };

/* 32 dimensions, or 64 at once, of `num_heads` heads' means. */
INLINE void average(Visible visible, const bf16 *weights, int64_t stride, const float *factors, int num_heads,
                    int64_t head_dim, int64_t d, int num_parts, bf16 *out) {
    __m512 sums[2][MOST_HEADS][2];
    bf16 together[BLOCK * MOST_DIM];
    for (int part = 0; part < num_parts; part++)
        for (int head = 0; head < num_heads; head++) sums[part][head][0] = sums[part][head][1] = _mm512_setzero_ps();
    for (int64_t start = 0; start <= visible.num_cached; start += BLOCK) {
        const bf16 *values =
            tokens_of(visible.values, visible.own_value, start, visible.num_cached, head_dim, together);
        for (int t = 0; t < BLOCK; t += 2)
            for (int part = 0; part < num_parts; part++) {
                const bf16 *first = values + t * head_dim + d + 32 * part;
                add_pair(sums[part], weights + start + t, stride, num_heads, first, first + head_dim);
            }
    }
    for (int part = 0; part < num_parts; part++)
        for (int head = 0; head < num_heads; head++)
            store_mean(out + head * head_dim + d + 32 * part, sums[part][head], factors[head]);
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
    int num_parts = num_heads <= MOST_HEADS - 2 && head_dim % 64 == 0 ? 2 : 1;
    for (int64_t d = 0; d < head_dim; d += 32 * num_parts)
        average(visible, (const bf16 *)weights, 2 * stride, factors, num_heads, head_dim, d, num_parts, out);
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
