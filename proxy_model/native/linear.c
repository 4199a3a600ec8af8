#include "linear.h"

enum {
    VECTORS = PANEL / 16,
    MOST_ROWS = 6,    /* of a block: 24 sums, 4 weights and a pair of inputs fit the 32 registers */
    CHUNK = 128,      /* inputs of a panel whose weights, 16 KB, stay in the first-level cache from block to block */
    MOST_CHUNKED = 6, /* blocks: where there are more, computing takes so long that whole panels come in time, too */
    AHEAD = 64        /* inputs by which a single block of rows fetches ahead */
};

typedef struct {
    const Linear *weight;
    const bf16 *rows;
    void *out;
    Epilogue epilogue;
    float *partial; /* [num_rows][PANEL] sums over the chunks before, unrounded: chunks do not change a number */
} Product;

/* Inputs `begin` to `end` of a panel, and how many inputs further on to fetch from meanwhile. */
typedef struct {
    int64_t panel, begin, end, ahead;
} Chunk;

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

/* Of every four lines that a block of rows reads, those for which it fetches the one ahead. */
typedef struct {
    int first, count;
} Lines;

/* `count` rows times one chunk: every output is one sum, pair after pair of the inputs. */
INLINE void multiply_block(Product product, Chunk chunk, int64_t row, int count, Lines fetched) {
    int64_t num_inputs = product.weight->num_inputs;
    const bf16 *weights = product.weight->panels + (chunk.panel * num_inputs + chunk.begin) * PANEL;
    const bf16 *inputs = product.rows + row * num_inputs;
    float *partial = product.partial + row * PANEL;
    __m512 sums[MOST_ROWS][VECTORS];
    for (int r = 0; r < count; r++)
        for (int v = 0; v < VECTORS; v++)
            sums[r][v] = chunk.begin ? _mm512_loadu_ps(partial + r * PANEL + 16 * v) : _mm512_setzero_ps();
    for (int64_t i = chunk.begin; i < chunk.end; i += 2, weights += 2 * PANEL) {
        __m512bh columns[VECTORS];
        for (int v = 0; v < VECTORS; v++) columns[v] = load_pairs(weights + 32 * v);
        for (int line = 0; line < fetched.count; line++)
            _mm_prefetch((const char *)(weights + chunk.ahead * PANEL + 32 * (fetched.first + line)), _MM_HINT_T1);
        for (int r = 0; r < count; r++) {
            __m512bh pair = repeat_pair(inputs + r * num_inputs + i);
            for (int v = 0; v < VECTORS; v++) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], columns[v], pair);
        }
    }
    for (int r = 0; r < count; r++) {
        if (chunk.end == num_inputs) finish(product, sums[r], row + r, chunk.panel);
        else
            for (int v = 0; v < VECTORS; v++) _mm512_storeu_ps(partial + r * PANEL + 16 * v, sums[r][v]);
    }
}

/* A block of rows. The first four blocks share the fetching; how much falls on this one is a constant, too, so that all
 * sums stay in registers. One or two rows alone wait for memory anyway, and the processor fetches for them by itself. */
INLINE void multiply_ahead(Product product, Chunk chunk, int64_t row, int count, int block, int num_blocks) {
    int sharing = num_blocks < 4 ? num_blocks : 4;
    int first = 4 * block / sharing, num_lines = 4 * (block + 1) / sharing - first;
    if (block >= sharing || (num_blocks == 1 && count <= 2)) num_lines = 0;
    switch (num_lines) {
        case 0: multiply_block(product, chunk, row, count, (Lines){0, 0}); break;
        case 1: multiply_block(product, chunk, row, count, (Lines){first, 1}); break;
        case 2: multiply_block(product, chunk, row, count, (Lines){first, 2}); break;
        case 4: multiply_block(product, chunk, row, count, (Lines){0, 4}); break;
    }
}

INLINE void multiply_rows(Product product, Chunk chunk, int64_t num_rows, int num_blocks) {
    for (int block = 0; block < num_blocks; block++) {
        int64_t row = num_rows * block / num_blocks;
        switch (num_rows * (block + 1) / num_blocks - row) {
            case 1: multiply_ahead(product, chunk, row, 1, block, num_blocks); break;
            case 2: multiply_ahead(product, chunk, row, 2, block, num_blocks); break;
            case 3: multiply_ahead(product, chunk, row, 3, block, num_blocks); break;
            case 4: multiply_ahead(product, chunk, row, 4, block, num_blocks); break;
            case 5: multiply_ahead(product, chunk, row, 5, block, num_blocks); break;
            case 6: multiply_ahead(product, chunk, row, 6, block, num_blocks); break;
        }
    }
}

INLINE void multiply_all(Product product, int64_t num_rows, int64_t begin, int64_t end) {
    float partial[MOST_CHUNKED * MOST_ROWS * PANEL];
    int num_blocks = (int)((num_rows + MOST_ROWS - 1) / MOST_ROWS);
    int64_t num_inputs = product.weight->num_inputs;
    int64_t size = 1 < num_blocks && num_blocks <= MOST_CHUNKED ? CHUNK : num_inputs;
    product.partial = partial;
    for (int64_t panel = begin; panel < end; panel++)
        for (int64_t input = 0; input < num_inputs; input += size) {
            int64_t chunk_end = input + size < num_inputs ? input + size : num_inputs;
            Chunk chunk = {panel, input, chunk_end, num_blocks == 1 ? AHEAD : size};
            multiply_rows(product, chunk, num_rows, num_blocks);
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
