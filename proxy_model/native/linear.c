#include "linear.h"

enum { VECTORS = PANEL / 16, MOST_ROWS = 6 }; /* 24 sums, 4 weights and a pair of inputs fit the 32 registers */

typedef struct {
    const Linear *weight;
    const bf16 *rows;
    void *out;
    Epilogue epilogue;
} Product;

INLINE __m512 silu(__m512 x) {
    __m512 negative = _mm512_sub_ps(_mm512_setzero_ps(), x);
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), exponential(negative)));
}

/* One row's outputs of a panel, to where they belong. */
INLINE void finish(Product product, __m512 *sums, int64_t row, int64_t panel) {
    const Linear *weight = product.weight;
    int64_t first = panel * PANEL;
    if (weight->bias)
        for (int v = 0; v < VECTORS; v++) sums[v] = _mm512_add_ps(sums[v], load(weight->bias + first + 16 * v));
    if (product.epilogue == SILU_MUL) {
        bf16 *to = (bf16 *)product.out + (row * weight->num_outputs + first) / 2;
        for (int v = 0; v < VECTORS / 2; v++) {
            __m512 gate = rounded(sums[v]), up = rounded(sums[v + VECTORS / 2]);
            store(to + 16 * v, _mm512_mul_ps(rounded(silu(gate)), up));
        }
        return;
    }
    int64_t at = row * weight->num_outputs + first;
    for (int v = 0; v < VECTORS; v++, at += 16) {
        bf16 *to = (bf16 *)product.out + at;
        if (product.epilogue == STORE_FLOAT)
            _mm512_storeu_ps((float *)product.out + at, rounded(sums[v]));
        else if (product.epilogue == ADD)
            store(to, _mm512_add_ps(load(to), rounded(sums[v])));
        else
            store(to, sums[v]);
    }
}

/* `count` rows times one panel: every output is one sum, pair after pair of the inputs. */
INLINE void multiply_rows(Product product, int64_t row, int count, int64_t panel) {
    int64_t num_inputs = product.weight->num_inputs;
    const bf16 *weights = product.weight->panels + panel * PANEL * num_inputs;
    const bf16 *inputs = product.rows + row * num_inputs;
    __m512 sums[MOST_ROWS][VECTORS];
    for (int r = 0; r < count; r++)
        for (int v = 0; v < VECTORS; v++) sums[r][v] = _mm512_setzero_ps();
    for (int64_t i = 0; i < num_inputs; i += 2, weights += 2 * PANEL) {
        __m512bh columns[VECTORS];
        for (int v = 0; v < VECTORS; v++) columns[v] = load_pairs(weights + 32 * v);
        for (int r = 0; r < count; r++) {
            __m512bh pair = repeat_pair(inputs + r * num_inputs + i);
            for (int v = 0; v < VECTORS; v++) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], columns[v], pair);
        }
    }
    for (int r = 0; r < count; r++) finish(product, sums[r], row + r, panel);
}

/* Constant counts, so that the compiler keeps all sums in registers. */
INLINE void multiply_all(Product product, int64_t num_rows, int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; panel++) {
        int64_t row = 0;
        for (; row + MOST_ROWS <= num_rows; row += MOST_ROWS) multiply_rows(product, row, MOST_ROWS, panel);
        switch (num_rows - row) {
            case 5: multiply_rows(product, row, 5, panel); break;
            case 4: multiply_rows(product, row, 4, panel); break;
            case 3: multiply_rows(product, row, 3, panel); break;
            case 2: multiply_rows(product, row, 2, panel); break;
            case 1: multiply_rows(product, row, 1, panel); break;
        }
    }
}

void multiply_panels(const Linear *weight, const bf16 *rows, int64_t num_rows, void *out, Epilogue epilogue,
                     int64_t begin, int64_t end) {
    switch (epilogue) {
        case STORE: multiply_all((Product){weight, rows, out, STORE}, num_rows, begin, end); break;
        case STORE_FLOAT: multiply_all((Product){weight, rows, out, STORE_FLOAT}, num_rows, begin, end); break;
        case ADD: multiply_all((Product){weight, rows, out, ADD}, num_rows, begin, end); break;
        case SILU_MUL: multiply_all((Product){weight, rows, out, SILU_MUL}, num_rows, begin, end); break;
    }
}
