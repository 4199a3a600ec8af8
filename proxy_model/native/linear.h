/* The product with a weight that never changes. */
#pragma once

#include "vectors.h"

enum { PANEL = 64 };

typedef struct {
    const bf16 *panels; /* [num_outputs / PANEL][num_inputs / 2][PANEL][2] */
    const bf16 *bias;   /* [num_outputs], or NULL */
    int64_t num_inputs, num_outputs;
} Linear;

/* What becomes of y = rows @ weight.T + bias, which is rounded to bfloat16 in any case. */
typedef enum {
    STORE,       /* out [num_rows][num_outputs] = y */
    STORE_FLOAT, /* the same as float */
    ADD,         /* out += y */
    SILU_MUL,    /* out [num_rows][num_outputs / 2] = silu(gate) * up: outputs are 16 gates, their 16 ups ... */
} Epilogue;

/* The outputs of panels `begin` to `end`. An output's numbers do not depend on how many rows there are. */
void multiply_panels(const Linear *weight, const bf16 *rows, int64_t num_rows, void *out, Epilogue epilogue,
                     int64_t begin, int64_t end);
