/* Attention of several rows of one text. Most of the tokens that they look at are the same ones: keys and values are loaded
 * for all of them together, and there are always enough sums under way that none waits for the one before it. */
#include "attention_blocks.h"

enum {
    QUERIES = 3, /* lines whose scores are computed together, with one or two blocks of keys */
    LANES = 16,  /* partial sums that a score consists of, see `sums_of_lanes` */
    MOST_PARTS = MOST_DIM / 32
};

typedef __m512 Scores[QUERIES][2];

/* Line l is head l % num_heads of row l / num_heads. */
typedef struct {
    const bf16 *queries[LINES]; /* those beyond the last line are the first's */
    float *weights;             /* [LINES][stride] */
    int64_t stride;
} Lines;

void pack_keys(const bf16 *keys, int64_t head_dim, bf16 *packed) {
    for (int64_t pair = 0; pair < head_dim / 2; pair++)
        for (int t = 0; t < BLOCK; t++)
            memcpy(packed + (pair * BLOCK + t) * 2, keys + t * head_dim + 2 * pair, 2 * sizeof(bf16));
}

/* One of a score's partial sums: that of every sixteenth pair of dimensions, for the tokens of the blocks. */
INLINE void sum_lane(Scores sums, const bf16 *const *queries, const bf16 *packed, int num_blocks, int64_t head_dim,
                     int lane) {
    for (int q = 0; q < QUERIES; q++) sums[q][0] = sums[q][1] = _mm512_setzero_ps();
    for (int64_t pair = lane; pair < head_dim / 2; pair += LANES) {
        __m512bh keys[2];
        for (int b = 0; b < num_blocks; b++) keys[b] = load_pairs(packed + b * BLOCK * head_dim + pair * 2 * BLOCK);
        for (int q = 0; q < QUERIES; q++) {
            __m512bh query = repeat_pair(queries[q] + 2 * pair);
            for (int b = 0; b < num_blocks; b++) sums[q][b] = _mm512_dpbf16_ps(sums[q][b], query, keys[b]);
        }
    }
}

INLINE void add_scores(Scores sums, Scores others, int num_blocks) {
    for (int q = 0; q < QUERIES; q++)
        for (int b = 0; b < num_blocks; b++) sums[q][b] = _mm512_add_ps(sums[q][b], others[q][b]);
}

/* The scores of one or two blocks for QUERIES lines: partial sums are added up in the order of `sums_of_lanes`. */
INLINE void score_blocks(const Lines *lines, int line, const bf16 *packed, int64_t block, int num_blocks,
                         int64_t head_dim) {
    const bf16 *const *queries = lines->queries + line, *from = packed + block * BLOCK * head_dim;
    Scores fours[LANES / 4];
#pragma GCC unroll 1
    for (int lane = 0; lane < LANES; lane += 4) {
        Scores left, right, last;
        sum_lane(left, queries, from, num_blocks, head_dim, lane);
        sum_lane(right, queries, from, num_blocks, head_dim, lane + 2);
        add_scores(left, right, num_blocks);
        sum_lane(right, queries, from, num_blocks, head_dim, lane + 1);
        sum_lane(last, queries, from, num_blocks, head_dim, lane + 3);
        add_scores(right, last, num_blocks);
        add_scores(left, right, num_blocks);
        memcpy(fours[lane / 4], left, sizeof left);
    }
    add_scores(fours[0], fours[1], num_blocks);
    add_scores(fours[2], fours[3], num_blocks);
    add_scores(fours[0], fours[2], num_blocks);
    for (int q = 0; q < QUERIES; q++)
        for (int b = 0; b < num_blocks; b++)
            _mm512_storeu_ps(lines->weights + (line + q) * lines->stride + (block + b) * BLOCK, fours[0][q][b]);
}

INLINE void score_packed(const Lines *lines, int num_lines, const bf16 *packed, int64_t num_blocks, int64_t head_dim) {
    int64_t block = 0;
    for (; block + 2 <= num_blocks; block += 2)
        for (int line = 0; line < num_lines; line += QUERIES) score_blocks(lines, line, packed, block, 2, head_dim);
    for (int line = 0; block < num_blocks && line < num_lines; line += QUERIES)
        score_blocks(lines, line, packed, block, 1, head_dim);
}

/* A row's scores where keys are not packed: from token `begun` on. */
INLINE void score_rest(const Lines *lines, int line, int num_heads, const bf16 *keys, int64_t begun, int64_t num_cached,
                       int64_t head_dim) {
    bf16 together[BLOCK * MOST_DIM];
    for (int64_t start = begun; start <= num_cached; start += BLOCK) {
        const bf16 *block = tokens_of(keys, keys + num_cached * head_dim, start, num_cached, head_dim, together);
        for (int head = line; head < line + num_heads; head++)
            _mm512_storeu_ps(lines->weights + head * lines->stride + start,
                             scores_of(lines->queries[head], block, head_dim));
    }
}

/* sums [num_lines][head_dim / 32][2] of the tokens that all rows see: pairs of them. */
INLINE void average_shared(const Lines *lines, int num_lines, const bf16 *values, int64_t num_shared, int64_t head_dim,
                           __m512 (*all)[MOST_PARTS][2]) {
    for (int64_t d = 0; d < head_dim; d += 32) {
        __m512 sums[LINES][2];
        for (int line = 0; line < num_lines; line++) sums[line][0] = sums[line][1] = _mm512_setzero_ps();
        for (int64_t token = 0; token < num_shared; token += 2)
            add_pair(sums, (const bf16 *)lines->weights + token, 2 * lines->stride, num_lines,
                     values + token * head_dim + d, values + (token + 1) * head_dim + d);
        for (int line = 0; line < num_lines; line++) memcpy(all[line][d / 32], sums[line], sizeof sums[line]);
    }
}

/* Adds a line's tokens from `begun` to its own; behind it weights are zero. */
INLINE void average_rest(const bf16 *weights, const bf16 *values, int64_t begun, int64_t num_cached, int64_t head_dim,
                         __m512 (*sums)[2]) {
    for (int64_t token = begun; token <= num_cached; token += 2) {
        const bf16 *first = values + token * head_dim, *second = token < num_cached ? first + head_dim : first;
        for (int64_t d = 0; d < head_dim; d += 32)
            add_pair(sums + d / 32, weights + token, 0, 1, first + d, second + d);
    }
}

/* weights [num_lines] of scores, and `factors`: 1 / the sum of each line's. */
INLINE void weigh_lines(const Lines *lines, Neighbours rows, int num_heads, int64_t head_dim, float scale,
                        float *factors) {
    for (int row = 0; row < rows.num_rows; row++) {
        int64_t num_cached = rows.first_place + row;
        score_rest(lines, row * num_heads, num_heads, rows.keys, rows.num_packed * BLOCK, num_cached, head_dim);
        for (int line = row * num_heads; line < (row + 1) * num_heads; line++)
            factors[line] = weigh(lines->weights + line * lines->stride, num_cached + 1, scale);
    }
}

INLINE void average_lines(const Lines *lines, Neighbours rows, int num_heads, int64_t head_dim, const float *factors) {
    __m512 sums[LINES][MOST_PARTS][2];
    int num_lines = (int)rows.num_rows * num_heads;
    int64_t shared = (rows.first_place + 1) & ~(int64_t)1;
    if (num_lines <= 3) average_shared(lines, 3, rows.values, shared, head_dim, sums);
    else if (num_lines <= 6) average_shared(lines, 6, rows.values, shared, head_dim, sums);
    else if (num_lines <= 9) average_shared(lines, 9, rows.values, shared, head_dim, sums);
    else average_shared(lines, LINES, rows.values, shared, head_dim, sums);
    for (int line = 0; line < num_lines; line++) {
        int64_t row = line / num_heads, head = line % num_heads;
        average_rest((const bf16 *)(lines->weights + line * lines->stride), rows.values, shared, rows.first_place + row,
                     head_dim, sums[line]);
        for (int64_t d = 0; d < head_dim; d += 32)
            store_mean(rows.out + row * rows.out_size + head * head_dim + d, sums[line][d / 32], factors[line]);
    }
}

INLINE void attend_lines(Neighbours rows, int num_heads, int64_t head_dim, float scale, float *weights) {
    int num_lines = (int)rows.num_rows * num_heads;
    int64_t last_place = rows.first_place + rows.num_rows - 1, num_blocks = weights_of_head(last_place) / BLOCK;
    Lines lines = {.weights = weights, .stride = weights_of_line(last_place)};
    float factors[LINES];
    for (int line = 0; line < LINES; line++) {
        int of = line < num_lines ? line : 0;
        lines.queries[line] = rows.queries + of / num_heads * rows.row_size + of % num_heads * head_dim;
    }
    if (rows.num_packed > num_blocks) rows.num_packed = num_blocks;
    score_packed(&lines, num_lines, rows.packed_keys, rows.num_packed, head_dim);
    weigh_lines(&lines, rows, num_heads, head_dim, scale, factors);
    average_lines(&lines, rows, num_heads, head_dim, factors);
}

void attend_neighbours(Neighbours rows, int64_t num_heads, int64_t head_dim, float scale, float *weights) {
    for (int64_t head = 0; head < num_heads; head += LINES) {
        int count = (int)(num_heads - head < LINES ? num_heads - head : LINES);
        switch (head_dim) {
            case 64: attend_lines(rows, count, 64, scale, weights); break;
            case 128: attend_lines(rows, count, 128, scale, weights); break;
            default: attend_lines(rows, count, head_dim, scale, weights);
        }
        rows.queries += LINES * head_dim;
        rows.out += LINES * head_dim;
    }
}
