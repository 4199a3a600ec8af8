#include "scorer.h"

#include <math.h>
#include <stdlib.h>

#include "vectors.h"

enum { TOGETHER = 4 /* rows that are multiplied by the prefix weights at once */, SCALARS = 4 };

typedef struct {
    const Scorer *scorer;
    const Share *share;
    const OpenMP *openmp;
    float *hidden; /* [num_rows][H] what a position's candidates have in common */
} Work;

/* 64 units of the prefix part of `count` rows: sums over the state, in order. */
INLINE void multiply_states(const Work *work, int64_t row, int count, int64_t unit, int vectors) {
    const Scorer *scorer = work->scorer;
    const float *states[TOGETHER];
    __m512 sums[TOGETHER][4];
    for (int r = 0; r < count; r++) {
        states[r] = work->share->states + work->share->rows[row + r] * scorer->state_size;
        for (int v = 0; v < vectors; v++) sums[r][v] = _mm512_setzero_ps();
    }
    const float *weights = scorer->prefix + unit;
    for (int64_t d = 0; d < scorer->state_size; d++, weights += scorer->hidden_size)
        for (int v = 0; v < vectors; v++) {
            __m512 column = _mm512_loadu_ps(weights + 16 * v);
            for (int r = 0; r < count; r++)
                sums[r][v] = _mm512_fmadd_ps(_mm512_set1_ps(states[r][d]), column, sums[r][v]);
        }
    for (int r = 0; r < count; r++)
        for (int v = 0; v < vectors; v++)
            _mm512_storeu_ps(work->hidden + (row + r) * scorer->hidden_size + unit + 16 * v, sums[r][v]);
}

INLINE void common_part(const Work *work, int64_t row, int count) {
    int64_t size = work->scorer->hidden_size, unit = 0;
    for (; unit + 64 <= size; unit += 64) multiply_states(work, row, count, unit, 4);
    for (; unit < size; unit += 16) multiply_states(work, row, count, unit, 1);
    if (!work->scorer->target || !work->share->targets) return;
    for (int64_t r = row; r < row + count; r++)
        for (int64_t u = 0; u < size; u++)
            for (int i = 0; i < 2; i++)
                work->hidden[r * size + u] += work->share->targets[2 * r + i] * work->scorer->target[i * size + u];
}

/* `slate_scalars` of proxy_model/decision/features.py. */
static void scalars_of(const float *logprobs, const uint8_t *is_candidate, int64_t width, float (*scalars)[SCALARS]) {
    float best = -INFINITY, mass_left = 0.0f;
    for (int64_t rank = 0; rank < width; rank++) best = fmaxf(best, is_candidate[rank] ? logprobs[rank] : -10.0f);
    for (int64_t rank = width - 1; rank >= 0; rank--) {
        float kept = is_candidate[rank] ? logprobs[rank] : -10.0f;
        if (is_candidate[rank]) mass_left += expf(kept);
        scalars[rank][0] = (float)rank / 16.0f;
        scalars[rank][1] = fmaxf(kept, -20.0f) / 10.0f;
        scalars[rank][2] = scalars[rank][1] - best / 10.0f;
        scalars[rank][3] = mass_left;
    }
}

static float accept_logit(const Scorer *scorer, const float *hidden, int64_t token, const float *scalars) {
    int64_t size = scorer->hidden_size;
    __m512 total = _mm512_setzero_ps();
    for (int64_t unit = 0; unit < size; unit += 16) {
        __m512 joined =
            _mm512_add_ps(_mm512_loadu_ps(scorer->table + token * size + unit), _mm512_loadu_ps(hidden + unit));
        for (int i = 0; i < SCALARS; i++)
            joined =
                _mm512_fmadd_ps(_mm512_set1_ps(scalars[i]), _mm512_loadu_ps(scorer->scalars + i * size + unit), joined);
        total = _mm512_fmadd_ps(silu(joined), _mm512_loadu_ps(scorer->output + unit), total);
    }
    return _mm512_reduce_add_ps(total) + scorer->bias;
}

static void score_row(const Work *work, int64_t index) {
    const Share *share = work->share;
    int64_t width = share->width, at = share->rows[index] * width;
    float scalars[width][SCALARS];
    scalars_of(share->logprobs + at, share->is_candidate + at, width, scalars);
    for (int64_t rank = 0; rank < width; rank++)
        share->accept_logits[at + rank] = accept_logit(work->scorer, work->hidden + index * work->scorer->hidden_size,
                                                       share->tokens[at + rank], scalars[rank]);
}

static void run(void *argument) {
    Work *work = argument;
    Member member = join(work->openmp, NULL);
    int64_t row = first_of(member, work->share->num_rows), end = end_of(member, work->share->num_rows);
    for (int64_t next = row; next < end;)
        if (next + TOGETHER <= end) common_part(work, next, TOGETHER), next += TOGETHER;
        else common_part(work, next, 1), next++;
    for (; row < end; row++) score_row(work, row);
}

int score(const Scorer *scorer, const Share *share, const OpenMP *openmp, int num_threads) {
    Work work = {scorer, share, num_threads > 1 && share->num_rows > 1 ? openmp : NULL, NULL};
    work.hidden = malloc(share->num_rows * scorer->hidden_size * sizeof(float));
    if (!work.hidden) return -1;
    if (work.openmp) run_together(openmp, run, &work, num_threads);
    else run(&work);
    free(work.hidden);
    return 0;
}
