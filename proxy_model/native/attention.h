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

enum { LINES = 12 /* of rows times heads that share keys and values: what the registers hold sums for */ };

/* Neighbouring rows of one text, each at the place after the one before it, all of them in the cache. */
typedef struct {
    const bf16 *queries; /* [num_heads][head_dim] of the first row */
    int64_t row_size;    /* from there to the next row's */
    const bf16 *keys, *values;
    const bf16 *packed_keys; /* [num_packed] blocks, see `pack_keys`: all, or all but the last, that the rows see */
    int64_t num_packed, first_place, num_rows;
    bf16 *out;        /* [num_heads][head_dim] of the first row */
    int64_t out_size; /* from there to the next row's */
} Neighbours;

/* keys [BLOCK][head_dim] to packed [head_dim / 2][BLOCK][2]. */
void pack_keys(const bf16 *keys, int64_t head_dim, bf16 *packed);

/* Floats of room that LINES lines' weights take. An odd number of blocks apart, so that the same tokens of several lines
 * are not in one set of a cache. */
INLINE int64_t weights_of_line(int64_t num_cached) { return weights_of_head(num_cached) | BLOCK; }
INLINE int64_t weights_of_lines(int64_t num_cached) { return LINES * weights_of_line(num_cached); }

/* As `attend` for each of the rows, to the bit: rows times heads are LINES at most, or it is one row. */
void attend_neighbours(Neighbours rows, int64_t num_heads, int64_t head_dim, float scale, float *weights);
