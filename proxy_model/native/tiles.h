/* What one thread attends to at once: a row, or neighbours of one text. */
#pragma once

#include "attention.h"
#include "llama.h"
#include "team.h"

/* So many rows of one text, each at the place after the one before it, that packing its keys pays. */
typedef struct {
    int64_t first_row, num_rows;
    int64_t num_blocks; /* whole blocks of tokens that the last row sees */
    int64_t packed;     /* where the first head's blocks begin among all packed keys, in blocks */
} Passage;

typedef struct {
    int64_t first_row, num_rows;
    const Passage *passage; /* NULL: one row, on its own */
} Tile;

typedef struct {
    const Model *model;
    const Step *step;
    const bf16 *qkv; /* [num_rows][num_heads + 2 num_kv_heads][head_dim], rotated */
    bf16 *attended;  /* [num_rows][num_heads][head_dim] the result */
    Passage *passages;
    Tile *tiles;
    int64_t num_passages, num_tiles;
    bf16 *packed_keys;           /* of one layer: passage by passage [num_kv_heads][num_blocks] of `pack_keys` */
    int64_t weights_of_a_thread; /* floats of room that a thread needs */
} Tiles;

/* 0, or -1: no memory. `qkv` and `attended` are the caller's to set. */
int cut_into_tiles(const Model *model, const Step *step, Tiles *tiles);
void free_tiles(Tiles *tiles);

/* A member's share of packing; all are to be through with it before anybody attends. */
void pack_passages(const Tiles *tiles, Member member, int64_t layer);

/* One tile's queries of the heads that share keys and values `kv_head`. */
void attend_tile(const Tiles *tiles, int64_t layer, Tile tile, int64_t kv_head, float *weights);
