/* The actor of a proxy with `prefix` features over whole slates, see proxy_model/decision/slate_scorer.py. */
#pragma once

#include "team.h"

typedef struct {
    int64_t state_size, hidden_size; /* D, and H: a multiple of 16 */
    const float *prefix;             /* [D][H] */
    const float *table;              /* [V][H] the first layer's part of every candidate, its bias included */
    const float *scalars;            /* [4][H] */
    const float *target;             /* [2][H], or NULL */
    const float *output;             /* [H] */
    float bias;
} Scorer;

typedef struct {
    int64_t num_rows, width;     /* B rows of this version, K candidates */
    const int64_t *rows;         /* [B] which of the step's rows they are */
    const float *states;         /* [step's rows][D] normalised */
    const int64_t *tokens;       /* [step's rows][K] */
    const float *logprobs;       /* [step's rows][K] */
    const uint8_t *is_candidate; /* [step's rows][K] */
    const float *targets;        /* [B][2] where the scorer has a target, or NULL */
    float *accept_logits;        /* [step's rows][K] the result */
} Share;

/* 0, or -1: no memory. */
int score(const Scorer *scorer, const Share *share, const OpenMP *openmp, int num_threads);
