/* A Llama decoder, and one step of it. */
#pragma once

#include "linear.h"

typedef struct {
    const bf16 *input_norm, *mlp_norm; /* [hidden_size] */
    const bf16 *query_norm, *key_norm; /* [head_dim], or NULL */
    Linear qkv, output, gate_up, down;
    float scale;
} Layer;

typedef struct {
    int64_t num_layers, hidden_size, num_heads, num_kv_heads, head_dim, intermediate_size, vocab_size, max_context;
    float epsilon;
    const bf16 *embedding, *final_norm;
    const bf16 *cos, *sin; /* [max_context][head_dim]; the sines carry the sign that rotating half of a head asks for */
    const Layer *layers;
} Model;

typedef struct {
    int64_t num_rows;
    int64_t num_layers;                /* that are run; the final norm only after all of the model's */
    const int64_t *tokens, *positions; /* [num_rows] */
    const int64_t *slots, *places;     /* [num_rows] where in the cache a row's key and value belong */
    const int64_t *begins;             /* [num_rows] the first place of its slot that a row looks at; NULL: 0 */
    int64_t num_slots, capacity;
    bf16 *const *keys, *const *values;   /* [num_layers] of [num_slots][num_kv_heads][capacity][head_dim] */
    int64_t first_sibling, num_siblings; /* rows whose keys and values the cache does not get */
    bf16 *sibling_keys, *sibling_values; /* [num_layers][num_siblings][num_kv_heads][head_dim] */
    bf16 *const *taps;                   /* [num_layers] of [num_rows][hidden_size], or NULL */
    bf16 *hidden;                        /* [num_rows][hidden_size]: the result */
    double *seconds;                     /* [NUM_PARTS] to which each part's time is added, or NULL */
} Step;
