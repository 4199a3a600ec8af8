#include "linear.h"

enum { VECTORS = PANEL / 16, MOST_ROWS = 6 }; /* 24 sums, 4 weights and a pair of inputs fit the 32 registers */

typedef struct {
    const Linear *weight;
    const bf16 *rows;
    void *out;
    Epilogue epilogue;
} Product;

/* One row's outputs of a panel, to where they belong. */
INLINE void finish(Product product, __m512 *sums, int64_t row, int64_t panel) {
    const Linear *weight = product.weight;
    int64_t first = panel * PANEL, at = row * weight->num_outputs + first;
    for (int v = 0; v < VECTORS; v++) {
        if (weight->bias) sums[v] = _mm512_add_ps(sums[v], load(weight->bias + first + 16 * v));
        bf16 *to = (bf16 *)product.out + at + 16 * v;
        if (product.epilogue == STORE) store(to, sums[v]);
        if (product.epilogue == ADD) store(to, _mm512_add_ps(load(to), rounded(sums[v])));
        if (product.epilogue == STORE_FLOAT) _mm512_storeu_ps((float *)product.out + at + 16 * v, rounded(sums[v]));
    }
    if (product.epilogue == SILU_MUL)
        for (int v = 0; v < VECTORS; v += 2) {
            __m512 gate = rounded(sums[v]), up = rounded(sums[v + 1]);
            store((bf16 *)product.out + at / 2 + 8 * v, _mm512_mul_ps(rounded(silu(gate)), up));
        }
}

/* Lines of the next panel that are fetched for every four of this one. */
typedef struct {
    int first, count;
} Ahead;

/* `count` rows times one panel: every output is one sum, pair after pair of the inputs. */
INLINE void multiply_block(Product product, int64_t row, int count, int64_t panel, Ahead ahead) {
    int64_t num_inputs = product.weight->num_inputs;
    const bf16 *weights = product.weight->panels + panel * PANEL * num_inputs;
    const bf16 *inputs = product.rows + row * num_inputs;
    __m512 sums[MOST_ROWS][VECTORS];
    for (int r = 0; r < count; r++)
        for (int v = 0; v < VECTORS; v++) sums[r][v] = _mm512_setzero_ps();
    for (int64_t i = 0; i < num_inputs; i += 2, weights += 2 * PANEL) {
        __m512bh columns[VECTORS];
        for (int v = 0; v < VECTORS; v++) columns[v] = load_pairs(weights + 32 * v);
        for (int line = 0; line < ahead.count; line++)
            _mm_prefetch((const char *)(weights + PANEL * num_inputs + 32 * (ahead.first + line)), _MM_HINT_T1);
        for (int r = 0; r < count; r++) {
            __m512bh pair = repeat_pair(inputs + r * num_inputs + i);
            for (int v = 0; v < VECTORS; v++) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], columns[v], pair);
        }
    }
    for (int r = 0; r < count; r++) finish(product, sums[r], row + r, panel);
}

/* A block of rows; how much of the next panel it fetches is a constant, too, so that all sums stay in registers. */
INLINE void multiply_ahead(Product product, int64_t row, int count, int64_t panel, int block, int num_blocks) {
    if (num_blocks == 1 && count > 2) multiply_block(product, row, count, panel, (Ahead){0, 4});
    else if (num_blocks == 2) multiply_block(product, row, count, panel, (Ahead){2 * block, 2});
    else if (num_blocks > 2 && block < 4) multiply_block(product, row, count, panel, (Ahead){block, 1});
    else multiply_block(product, row, count, panel, (Ahead){0, 0});
}

INLINE void multiply_all(Product product, int64_t num_rows, int64_t begin, int64_t end) {
    int num_blocks = (int)((num_rows + MOST_ROWS - 1) / MOST_ROWS);
    for (int64_t panel = begin; panel < end; panel++)
        for (int block = 0; block < num_blocks; block++) {
            int64_t row = num_rows * block / num_blocks;
            switch (num_rows * (block + 1) / num_blocks - row) {
                case 1: multiply_ahead(product, row, 1, panel, block, num_blocks); break;
                case 2: multiply_ahead(product, row, 2, panel, block, num_blocks); break;
                case 3: multiply_ahead(product, row, 3, panel, block, num_blocks); break;
                case 4: multiply_ahead(product, row, 4, panel, block, num_blocks); break;
                case 5: multiply_ahead(product, row, 5, panel, block, num_blocks); break;
                case 6: multiply_ahead(product, row, 6, panel, block, num_blocks); break;
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
