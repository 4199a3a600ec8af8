/* One step of a Llama decoder in bfloat16: rows, each a token of some sequence at its own place in the cache.
 *
 * The threads walk through the layers together and meet after every operator. A row's numbers depend neither on the
 * other rows of the step nor on the number of threads: every sum runs over one row alone, in one order. */

#include <math.h>
#include <stdlib.h>

#include "team.h"
#include "tiles.h"

typedef enum { NORMS, PRODUCTS, ROTARY_AND_CACHE, ATTENTION, NUM_PARTS } Part;

typedef struct {
    const Model *model;
    const Step *step;
    const OpenMP *openmp;
    bf16 *normed, *qkv, *attended, *gated; /* [num_rows] of what a row has of each */
    Tiles tiles;
    float *weights;         /* [number of threads][tiles.weights_of_a_thread] */
    atomic_long *next_item; /* [num_layers] of attention, which takes longer for longer sequences */
    Meeting meeting;
    double since; /* the end of the last part that was timed */
} Work;

static void normalise(const bf16 *from, const bf16 *weight, int64_t size, float epsilon, bf16 *to) {
    __m512 squares = _mm512_setzero_ps();
    for (int64_t d = 0; d < size; d += 16) squares = _mm512_fmadd_ps(load(from + d), load(from + d), squares);
    __m512 factor = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(squares) / (float)size + epsilon));
    for (int64_t d = 0; d < size; d += 16)
        store(to + d, _mm512_mul_ps(_mm512_mul_ps(load(from + d), factor), load(weight + d)));
}

/* Rotary position embedding of one head, in place. */
static void rotate(bf16 *head, const bf16 *cos, const bf16 *sin, int64_t head_dim) {
    int64_t half = head_dim / 2;
    for (int64_t d = 0; d < half; d += 16) {
        __m512 low = load(head + d), high = load(head + half + d);
        store(head + d, _mm512_fmadd_ps(low, load(cos + d), _mm512_mul_ps(high, load(sin + d))));
        store(head + half + d, _mm512_fmadd_ps(high, load(cos + half + d), _mm512_mul_ps(low, load(sin + half + d))));
    }
}

static void embed(Work *work, Member member) {
    const Step *step = work->step;
    int64_t size = work->model->hidden_size;
    for (int64_t row = first_of(member, step->num_rows); row < end_of(member, step->num_rows); row++)
        memcpy(step->hidden + row * size, work->model->embedding + step->tokens[row] * size, size * sizeof(bf16));
}

static void normalise_rows(Work *work, Member member, const bf16 *weight, bf16 *to) {
    const Step *step = work->step;
    int64_t size = work->model->hidden_size;
    for (int64_t row = first_of(member, step->num_rows); row < end_of(member, step->num_rows); row++)
        normalise(step->hidden + row * size, weight, size, work->model->epsilon, to + row * size);
}

static void multiply(Work *work, Member member, const Linear *weight, const bf16 *rows, void *out, Epilogue epilogue) {
    int64_t panels = weight->num_outputs / PANEL;
    multiply_panels(weight, rows, work->step->num_rows, out, epilogue, first_of(member, panels),
                    end_of(member, panels));
}

/* Turn a row's queries and keys to its position. */
static void rotate_row(const Work *work, const Layer *layer, int64_t row, bf16 *qkv) {
    const Model *model = work->model;
    int64_t dim = model->head_dim, angle = work->step->positions[row] * dim;
    for (int64_t head = 0; head < model->num_heads + model->num_kv_heads; head++) {
        const bf16 *weight = head < model->num_heads ? layer->query_norm : layer->key_norm;
        if (weight) normalise(qkv + head * dim, weight, dim, model->epsilon, qkv + head * dim);
        rotate(qkv + head * dim, model->cos + angle, model->sin + angle, dim);
    }
}

/* Write a row's keys and values to the cache, a sibling's beside it. */
static void keep_row(const Work *work, int64_t layer, int64_t row, const bf16 *own_keys, const bf16 *own_values) {
    const Step *step = work->step;
    int64_t dim = work->model->head_dim, heads = work->model->num_kv_heads, sibling = row - step->first_sibling;
    int is_sibling = 0 <= sibling && sibling < step->num_siblings;
    bf16 *keys = is_sibling ? step->sibling_keys : step->keys[layer];
    bf16 *values = is_sibling ? step->sibling_values : step->values[layer];
    for (int64_t head = 0; head < heads; head++) {
        int64_t beside = (layer * step->num_siblings + sibling) * heads + head;
        int64_t inside = (step->slots[row] * heads + head) * step->capacity + step->places[row];
        int64_t at = (is_sibling ? beside : inside) * dim;
        memcpy(keys + at, own_keys + head * dim, dim * sizeof(bf16));
        memcpy(values + at, own_values + head * dim, dim * sizeof(bf16));
    }
}

static void place_rows(Work *work, Member member, int64_t layer) {
    const Model *model = work->model;
    int64_t dim = model->head_dim, width = (model->num_heads + 2 * model->num_kv_heads) * dim;
    int64_t num_rows = work->step->num_rows;
    for (int64_t row = first_of(member, num_rows); row < end_of(member, num_rows); row++) {
        bf16 *qkv = work->qkv + row * width, *keys = qkv + model->num_heads * dim;
        rotate_row(work, model->layers + layer, row, qkv);
        keep_row(work, layer, row, keys, keys + model->num_kv_heads * dim);
    }
}

static void attend_rows(Work *work, Member member, int64_t layer) {
    const Tiles *tiles = &work->tiles;
    float *weights = work->weights + member.number * tiles->weights_of_a_thread;
    if (tiles->num_passages) {
        pack_passages(tiles, member, layer);
        meet(member);
    }
    int64_t num_items = tiles->num_tiles * work->model->num_kv_heads; /* neighbours among them may share a sequence */
    for (int64_t item; (item = atomic_fetch_add(&work->next_item[layer], 1)) < num_items;)
        attend_tile(tiles, layer, tiles->tiles[item % tiles->num_tiles], item / tiles->num_tiles, weights);
}

static void tap(Work *work, Member member, bf16 *to) {
    const Step *step = work->step;
    int64_t size = work->model->hidden_size;
    int64_t begin = first_of(member, step->num_rows) * size, end = end_of(member, step->num_rows) * size;
    memcpy(to + begin, step->hidden + begin, (end - begin) * sizeof(bf16));
}

/* All threads are through with a part. */
static void end(Work *work, Member member, Part part) {
    meet(member);
    if (!work->step->seconds || member.number) return;
    double at = now();
    work->step->seconds[part] += at - work->since;
    work->since = at;
}

/* The layers, as each thread goes through them. */
static void run_layers(void *argument) {
    Work *work = argument;
    const Model *model = work->model;
    const Step *step = work->step;
    Member member = join(work->openmp, &work->meeting);
    embed(work, member);
    for (int64_t index = 0; index < step->num_layers; index++) {
        const Layer *layer = model->layers + index;
        normalise_rows(work, member, layer->input_norm, work->normed);
        end(work, member, NORMS);
        multiply(work, member, &layer->qkv, work->normed, work->qkv, STORE);
        end(work, member, PRODUCTS);
        place_rows(work, member, index);
        end(work, member, ROTARY_AND_CACHE);
        attend_rows(work, member, index);
        end(work, member, ATTENTION);
        multiply(work, member, &layer->output, work->attended, step->hidden, ADD);
        end(work, member, PRODUCTS);
        normalise_rows(work, member, layer->mlp_norm, work->normed);
        end(work, member, NORMS);
        multiply(work, member, &layer->gate_up, work->normed, work->gated, SILU_MUL);
        end(work, member, PRODUCTS);
        multiply(work, member, &layer->down, work->gated, step->hidden, ADD);
        end(work, member, PRODUCTS);
        if (step->taps && step->taps[index]) tap(work, member, step->taps[index]);
    }
    if (step->num_layers == model->num_layers) normalise_rows(work, member, model->final_norm, step->hidden);
}

static int is_within(int64_t number, int64_t end) { return 0 <= number && number < end; }

/* Whether every row is inside of the vocabulary, of the context and of the cache. */
static int is_inside(const Model *model, const Step *step) {
    for (int64_t row = 0; row < step->num_rows; row++) {
        int64_t place = step->places[row], begin = step->begins ? step->begins[row] : 0;
        if (!is_within(step->tokens[row], model->vocab_size) || !is_within(step->positions[row], model->max_context) ||
            !is_within(step->slots[row], step->num_slots) || !is_within(place, step->capacity) ||
            !is_within(begin, place + 1))
            return 0;
    }
    return 1;
}

/* 0; -1 where memory is short, -2 where a row is out of bounds. `openmp` may be NULL for one thread. */
int llama_step(const Model *model, const Step *step, const OpenMP *openmp, int num_threads) {
    if (!is_inside(model, step)) return -2;
    int64_t rows = step->num_rows, attended = model->num_heads * model->head_dim;
    int64_t width =
        model->hidden_size + 2 * attended + 2 * model->num_kv_heads * model->head_dim + model->intermediate_size;
    Work work = {.model = model, .step = step, .openmp = num_threads > 1 ? openmp : NULL, .since = now()};
    int is_short = cut_into_tiles(model, step, &work.tiles);
    work.weights = malloc(num_threads * work.tiles.weights_of_a_thread * sizeof(float));
    work.next_item = calloc(step->num_layers, sizeof *work.next_item);
    work.normed = malloc(rows * width * sizeof(bf16));
    is_short = is_short || !work.weights || !work.next_item || !work.normed;
    if (!is_short) {
        work.qkv = work.normed + rows * model->hidden_size;
        work.attended = work.qkv + rows * (attended + 2 * model->num_kv_heads * model->head_dim);
        work.gated = work.attended + rows * attended;
        work.tiles.qkv = work.qkv;
        work.tiles.attended = work.attended;
        if (work.openmp) run_together(openmp, run_layers, &work, num_threads);
        else run_layers(&work);
    }
    free_tiles(&work.tiles);
    free(work.weights);
    free(work.next_item);
    free(work.normed);
    return is_short ? -1 : 0;
}

typedef struct {
    const Linear *weight;
    const bf16 *rows;
    int64_t num_rows;
    void *out;
    Epilogue epilogue;
    const OpenMP *openmp;
} Multiplication;

static void run_multiplication(void *argument) {
    Multiplication *each = argument;
    Member member = join(each->openmp, NULL);
    int64_t panels = each->weight->num_outputs / PANEL;
    multiply_panels(each->weight, each->rows, each->num_rows, each->out, each->epilogue, first_of(member, panels),
                    end_of(member, panels));
}

/* rows [num_rows][num_inputs] times a weight, alone: the head's logits. */
void linear(const Linear *weight, const bf16 *rows, int64_t num_rows, void *out, Epilogue epilogue,
            const OpenMP *openmp, int num_threads) {
    Multiplication each = {weight, rows, num_rows, out, epilogue, num_threads > 1 ? openmp : NULL};
    if (each.openmp) run_together(openmp, run_multiplication, &each, num_threads);
    else run_multiplication(&each);
}
