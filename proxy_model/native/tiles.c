#include "tiles.h"

#include <stdlib.h>

enum { SHORTEST = 8 /* passage, in rows */ };

static int64_t begin_of(const Step *step, int64_t row) { return step->begins ? step->begins[row] : 0; }

/* How many tokens of the cache a row sees before its own. */
static int64_t num_before(const Step *step, int64_t row) { return step->places[row] - begin_of(step, row); }

static int is_sibling(const Step *step, int64_t row) {
    return step->first_sibling <= row && row < step->first_sibling + step->num_siblings;
}

/* Whether the next row is its text's next token. */
static int goes_on(const Step *step, int64_t row) {
    return row + 1 < step->num_rows && !is_sibling(step, row) && !is_sibling(step, row + 1) &&
           step->slots[row + 1] == step->slots[row] && step->places[row + 1] == step->places[row] + 1 &&
           begin_of(step, row + 1) == begin_of(step, row);
}

/* Of the keys or values of a layer, those of the first token that a row sees. */
static int64_t first_seen(const Model *model, const Step *step, int64_t row, int64_t kv_head) {
    int64_t token = (step->slots[row] * model->num_kv_heads + kv_head) * step->capacity + begin_of(step, row);
    return token * model->head_dim;
}

static bf16 *packed_of(const Tiles *tiles, const Passage *passage, int64_t kv_head) {
    int64_t block = passage->packed + kv_head * passage->num_blocks;
    return tiles->packed_keys + block * BLOCK * tiles->model->head_dim;
}

/* Rows `first` to `end` of one text; returns how many blocks of keys are packed up to theirs. */
static int64_t cut(Tiles *tiles, int64_t first, int64_t end, int64_t packed) {
    int64_t group = tiles->model->num_heads / tiles->model->num_kv_heads;
    int64_t together = group < LINES ? LINES / group : 1;
    const Passage *passage = NULL;
    if (end - first >= SHORTEST) {
        Passage found = {first, end - first, (num_before(tiles->step, end - 1) + 1) / BLOCK, packed};
        packed += tiles->model->num_kv_heads * found.num_blocks;
        tiles->passages[tiles->num_passages] = found;
        passage = tiles->passages + tiles->num_passages++;
    } else together = 1;
    for (int64_t row = first; row < end; row += together)
        tiles->tiles[tiles->num_tiles++] = (Tile){row, row + together < end ? together : end - row, passage};
    return packed;
}

int cut_into_tiles(const Model *model, const Step *step, Tiles *tiles) {
    int64_t most = 0, packed = 0, group = model->num_heads / model->num_kv_heads;
    *tiles = (Tiles){.model = model, .step = step};
    tiles->passages = malloc((step->num_rows / SHORTEST + 1) * sizeof *tiles->passages);
    tiles->tiles = malloc(step->num_rows * sizeof *tiles->tiles);
    if (!tiles->passages || !tiles->tiles) return -1;
    for (int64_t first = 0, row = 0; row < step->num_rows; row++) {
        if (num_before(step, row) > most) most = num_before(step, row);
        if (goes_on(step, row)) continue;
        packed = cut(tiles, first, row + 1, packed);
        first = row + 1;
    }
    tiles->weights_of_a_thread = tiles->num_passages ? weights_of_lines(most) : group * weights_of_head(most);
    tiles->packed_keys = malloc((packed + 1) * BLOCK * model->head_dim * sizeof(bf16));
    return tiles->packed_keys ? 0 : -1;
}

void free_tiles(Tiles *tiles) {
    free(tiles->passages);
    free(tiles->tiles);
    free(tiles->packed_keys);
}

void pack_passages(const Tiles *tiles, Member member, int64_t layer) {
    int64_t size = BLOCK * tiles->model->head_dim;
    for (int64_t index = 0; index < tiles->num_passages; index++) {
        const Passage *passage = tiles->passages + index;
        int64_t begin = first_of(member, passage->num_blocks), end = end_of(member, passage->num_blocks);
        for (int64_t head = 0; head < tiles->model->num_kv_heads; head++) {
            const bf16 *keys =
                tiles->step->keys[layer] + first_seen(tiles->model, tiles->step, passage->first_row, head);
            bf16 *packed = packed_of(tiles, passage, head);
            for (int64_t block = begin; block < end; block++)
                pack_keys(keys + block * size, tiles->model->head_dim, packed + block * size);
        }
    }
}

void attend_tile(const Tiles *tiles, int64_t layer, Tile tile, int64_t kv_head, float *weights) {
    const Model *model = tiles->model;
    const Step *step = tiles->step;
    int64_t dim = model->head_dim, kv_heads = model->num_kv_heads, group = model->num_heads / kv_heads;
    int64_t row = tile.first_row, row_size = (model->num_heads + 2 * kv_heads) * dim, out_size = model->num_heads * dim;
    const bf16 *qkv = tiles->qkv + row * row_size, *queries = qkv + kv_head * group * dim;
    const bf16 *own_key = qkv + (model->num_heads + kv_head) * dim;
    bf16 *out = tiles->attended + row * out_size + kv_head * group * dim;
    const bf16 *keys = step->keys[layer] + first_seen(model, step, row, kv_head);
    const bf16 *values = step->values[layer] + first_seen(model, step, row, kv_head);
    float scale = model->layers[layer].scale;
    if (tile.passage) {
        Neighbours rows = {queries,
                           row_size,
                           keys,
                           values,
                           packed_of(tiles, tile.passage, kv_head),
                           tile.passage->num_blocks,
                           num_before(step, row),
                           tile.num_rows,
                           out,
                           out_size};
        attend_neighbours(rows, group, dim, scale, weights);
    } else {
        Visible visible = {
            keys, values, own_key, own_key + kv_heads * dim, num_before(step, row), row < step->first_sibling};
        attend(queries, visible, group, dim, scale, weights, out);
    }
}
