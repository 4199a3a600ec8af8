/* Softmax attention of one token's heads that share keys and values. */
#pragma once

#include "vectors.h"

enum { BLOCK = 16 /* tokens that are looked at together */, MOST_DIM = 256 };

/* What the heads look at: tokens of the cache, then the row's own token, which the cache may lack. */
typedef struct {
    const bf16 *keys, *values;       /* [num_cached][head_dim] */
    const bf16 *own_key, *own_value; /* [head_dim] */
    int64_t num_cached;
    int is_cold; /* nobody has looked at these tokens just before: values are fetched while keys are looked at */
} Visible;

/* Floats of room that a head's weights take: whole blocks. */
INLINE int64_t weights_of_head(int64_t num_cached) { return (num_cached + BLOCK) & ~(int64_t)(BLOCK - 1); }

/* out [num_heads][head_dim] of `queries`, which are of that shape, too. */
void attend(const bf16 *queries, Visible visible, int64_t num_heads, int64_t head_dim, float scale, float *weights,
            bf16 *out);
