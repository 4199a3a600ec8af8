/* The candidates of positions, out of the logits of a whole vocabulary. */
#pragma once

#include "team.h"

typedef struct {
    int64_t num_rows, size, width;
    const float *logits;       /* [num_rows][size] */
    const float *temperatures; /* [num_rows] under which log-probabilities are given */
    const float *samplings;    /* [num_rows] at which the order is drawn; NULL: the likeliest come first */
    const float *top_ps;       /* [num_rows], and */
    const uint64_t *keys;      /* [num_rows] of the noise (proxy_model/decision/noise.py): where the order is drawn */
    int64_t *tokens;           /* [num_rows][width] the result, */
    float *logprobs;           /* [num_rows][width] minus infinity where a row has no further candidate */
} Slates;

/* Of each row the `width` tokens with the largest logits, largest first, ties by lower id; or tokens drawn one after
 * the other, without replacement, from the smallest set of tokens whose mass reaches top_p. 0, or -1: no memory. */
int slates(const Slates *slates, const OpenMP *openmp, int num_threads);
