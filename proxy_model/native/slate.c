#include "slate.h"

#include <math.h>
#include <stdlib.h>

#include "vectors.h"

enum { CHUNK = 64 };

INLINE int64_t smaller(int64_t left, int64_t right) { return left < right ? left : right; }

/* The first `count` lanes, or all. */
INLINE __mmask16 first(int64_t count) { return count < 16 ? (__mmask16)((1u << count) - 1) : (__mmask16)0xffff; }

/* 16 floats, minus infinity behind the end. */
INLINE __m512 load_some(const float *from, int64_t count) {
    return _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), first(count), from);
}

INLINE void store_some(float *to, int64_t count, __m512 values) { _mm512_mask_storeu_ps(to, first(count), values); }

/* scaled = logits / temperature; returns the largest. */
static float scale(const float *logits, int64_t size, float temperature, float *scaled) {
    __m512 divisor = _mm512_set1_ps(temperature), highest = _mm512_set1_ps(-INFINITY);
    for (int64_t i = 0; i < size; i += 16) {
        __m512 values = load_some(logits + i, size - i);
        if (temperature != 1.0f) values = _mm512_div_ps(values, divisor);
        highest = _mm512_max_ps(highest, values);
        store_some(scaled + i, size - i, values);
    }
    return _mm512_reduce_max_ps(highest);
}

/* The sum of e^(scaled - highest); each goes to `exponentials`, if that is not NULL. */
static double exponential_sum(const float *scaled, int64_t size, float highest, float *exponentials) {
    __m512d total = _mm512_setzero_pd();
    __m512 shift = _mm512_set1_ps(highest);
    for (int64_t start = 0; start < size; start += CHUNK) {
        __m512 sum = _mm512_setzero_ps();
        for (int64_t i = start; i < smaller(start + CHUNK, size); i += 16) {
            __m512 values = load_some(scaled + i, size - i);
            __mmask16 is_there = _mm512_cmp_ps_mask(values, _mm512_set1_ps(-INFINITY), _CMP_GT_OQ);
            values = _mm512_maskz_mov_ps(is_there, exponential(_mm512_sub_ps(values, shift)));
            if (exponentials) store_some(exponentials + i, size - i, values);
            sum = _mm512_add_ps(sum, values);
        }
        total = _mm512_add_pd(total, _mm512_cvtps_pd(_mm512_castps512_ps256(sum)));
        total = _mm512_add_pd(total, _mm512_cvtps_pd(_mm512_extractf32x8_ps(sum, 1)));
    }
    return _mm512_reduce_add_pd(total);
}

INLINE float chunk_maximum(const float *values, int64_t count) {
    __m512 highest = _mm512_set1_ps(-INFINITY);
    for (int64_t i = 0; i < smaller(count, CHUNK); i += 16)
        highest = _mm512_max_ps(highest, load_some(values + i, count - i));
    return _mm512_reduce_max_ps(highest);
}

/* The first place of `value`, which is there. */
INLINE int64_t first_place(const float *values, int64_t size, float value) {
    for (int64_t i = 0;; i += 16) {
        __mmask16 is_equal = _mm512_cmp_ps_mask(load_some(values + i, size - i), _mm512_set1_ps(value), _CMP_EQ_OQ);
        if (is_equal) return i + __builtin_ctz(is_equal);
    }
}

/* The places of the `width` largest values, largest first, ties by lower place; they become minus infinity. `maxima`
 * has room for a float per chunk. Returns how many are larger than minus infinity; the others' places are 0. */
static int64_t take_largest(float *values, int64_t size, int64_t width, float *maxima, int64_t *places) {
    int64_t num_chunks = (size + CHUNK - 1) / CHUNK;
    for (int64_t chunk = 0; chunk < num_chunks; chunk++)
        maxima[chunk] = chunk_maximum(values + chunk * CHUNK, size - chunk * CHUNK);
    for (int64_t rank = 0; rank < width; rank++) {
        __m512 highest = _mm512_set1_ps(-INFINITY);
        for (int64_t i = 0; i < num_chunks; i += 16)
            highest = _mm512_max_ps(highest, load_some(maxima + i, num_chunks - i));
        float best = _mm512_reduce_max_ps(highest);
        if (!(best > -INFINITY)) {
            for (int64_t rest = rank; rest < width; rest++) places[rest] = 0;
            return rank;
        }
        int64_t chunk = first_place(maxima, num_chunks, best);
        int64_t place = chunk * CHUNK + first_place(values + chunk * CHUNK, size - chunk * CHUNK, best);
        places[rank] = place;
        values[place] = -INFINITY;
        maxima[chunk] = chunk_maximum(values + chunk * CHUNK, size - chunk * CHUNK);
    }
    return width;
}

/* Standard Gumbel noise of 16 tokens. */
INLINE __m512 gumbel(uint64_t key, __m512i tokens) {
    __m512i x = _mm512_mullo_epi32(tokens, _mm512_set1_epi32((int)0x9E3779B9u));
    for (int round = 0; round < 2; round++) {
        x = _mm512_xor_si512(x, _mm512_set1_epi32((int)(uint32_t)(round ? key >> 32 : key)));
        x = _mm512_mullo_epi32(_mm512_xor_si512(x, _mm512_srli_epi32(x, 16)), _mm512_set1_epi32((int)0x85EBCA6Bu));
        x = _mm512_mullo_epi32(_mm512_xor_si512(x, _mm512_srli_epi32(x, 13)), _mm512_set1_epi32((int)0xC2B2AE35u));
        x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
    }
    __m512 above = _mm512_add_ps(_mm512_cvtepi32_ps(_mm512_srli_epi32(x, 9)), _mm512_set1_ps(0.5f));
    __m512 uniform = _mm512_mul_ps(above, _mm512_set1_ps(0x1p-23f));
    __m512 zero = _mm512_setzero_ps();
    return _mm512_sub_ps(zero, logarithm(_mm512_sub_ps(zero, logarithm(uniform))));
}

/* Indices of the exponentials that are at least `threshold`, in order, and their sum. */
static int64_t gather_above(const float *exponentials, int64_t size, float threshold, int32_t *found, double *mass) {
    int64_t count = 0;
    *mass = 0.0;
    __m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int64_t i = 0; i < size; i += 16, index = _mm512_add_epi32(index, _mm512_set1_epi32(16))) {
        __m512 values = load_some(exponentials + i, size - i);
        __mmask16 is_above = _mm512_cmp_ps_mask(values, _mm512_set1_ps(threshold), _CMP_GE_OQ);
        if (!is_above) continue;
        _mm512_mask_compressstoreu_epi32(found + count, is_above, index);
        count += __builtin_popcount(is_above);
        *mass += _mm512_mask_reduce_add_ps(is_above, values);
    }
    return count;
}

static int descending(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

/* The nucleus, likeliest first, ties by lower id: as many tokens as it takes for their mass to reach `mass`. Most of a
 * vocabulary is too unlikely to be in it, so that only what is above a threshold is sorted, a lower one if need be. */
static int64_t nucleus(const float *exponentials, int64_t size, double mass, int32_t *found) {
    double above = 0.0;
    int64_t count = 0;
    for (float threshold = 0x1p-10f; above < mass && count < size;
         threshold = threshold > 1e-30f ? threshold * 0x1p-6f : 0.0f) {
        count = gather_above(exponentials, size, threshold, found, &above);
        if (threshold == 0.0f) break;
    }
    uint64_t *keys = malloc((count + 1) * sizeof *keys);
    if (!keys)
        return count; /* in order of ids, and with what is beyond the nucleus: no worse than top_p a little larger */
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, exponentials + found[i], sizeof bits);
        keys[i] = (uint64_t)~bits << 32 | (uint32_t)found[i];
    }
    qsort(keys, count, sizeof *keys, descending);
    int64_t inside = 0;
    for (double before = 0.0; inside < count && before < mass; inside++) {
        found[inside] = (int32_t)(uint32_t)keys[inside];
        before += exponentials[found[inside]];
    }
    free(keys);
    return inside;
}

/* What a thread needs beside the logits, for a vocabulary of `size`. */
typedef struct {
    float *scaled, *exponentials, *maxima;
    int32_t *inside;
} Room;

/* The logarithm of the sum of exponentials under a temperature; `scaled` gets the logits under it. */
static float log_total(const float *logits, int64_t size, float temperature, float *scaled) {
    float highest = scale(logits, size, temperature, scaled);
    return highest + (float)log(exponential_sum(scaled, size, highest, NULL));
}

/* Tokens in a drawn order; returns how many there are. */
static int64_t draw(const Slates *slates, int64_t row, Room room, int64_t *tokens) {
    const float *logits = slates->logits + row * slates->size;
    float highest = scale(logits, slates->size, slates->samplings[row], room.scaled), top_p = slates->top_ps[row];
    int64_t count = slates->size;
    if (top_p < 1.0f) {
        double total = exponential_sum(room.scaled, count, highest, room.exponentials);
        count = nucleus(room.exponentials, count, top_p * total, room.inside);
    }
    float *perturbed = room.exponentials;
    __m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int64_t i = 0; i < count; i += 16, index = _mm512_add_epi32(index, _mm512_set1_epi32(16))) {
        __m512i ids = top_p < 1.0f ? _mm512_maskz_loadu_epi32(first(count - i), room.inside + i) : index;
        __m512 values = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), first(count - i), ids, room.scaled, 4);
        store_some(perturbed + i, count - i, _mm512_add_ps(values, gumbel(slates->keys[row], ids)));
    }
    int64_t found = take_largest(perturbed, count, slates->width, room.maxima, tokens);
    for (int64_t rank = 0; top_p < 1.0f && rank < found; rank++) tokens[rank] = room.inside[tokens[rank]];
    return found;
}

static void slate(const Slates *slates, int64_t row, Room room) {
    const float *logits = slates->logits + row * slates->size;
    float temperature = slates->temperatures[row];
    int64_t *tokens = slates->tokens + row * slates->width;
    float *logprobs = slates->logprobs + row * slates->width;
    int64_t found = slates->samplings ? draw(slates, row, room, tokens) : 0;
    float total = log_total(logits, slates->size, temperature, room.scaled);
    if (!slates->samplings) found = take_largest(room.scaled, slates->size, slates->width, room.maxima, tokens);
    for (int64_t rank = 0; rank < slates->width; rank++)
        logprobs[rank] = rank < found ? logits[tokens[rank]] / temperature - total : -INFINITY;
}

typedef struct {
    const Slates *slates;
    const OpenMP *openmp;
    float *room;
    int64_t room_per_thread;
} Work;

static void run(void *argument) {
    Work *work = argument;
    const Slates *all = work->slates;
    Member member = join(work->openmp, NULL);
    float *own = work->room + member.number * work->room_per_thread;
    Room room = {own, own + all->size, own + 2 * all->size, (int32_t *)(own + 3 * all->size)};
    for (int64_t row = first_of(member, all->num_rows); row < end_of(member, all->num_rows); row++)
        slate(all, row, room);
}

int slates(const Slates *slates, const OpenMP *openmp, int num_threads) {
    Work work = {.slates = slates, .openmp = num_threads > 1 ? openmp : NULL, .room_per_thread = 4 * slates->size};
    work.room = malloc(num_threads * work.room_per_thread * sizeof(float));
    if (!work.room) return -1;
    if (work.openmp) run_together(openmp, run, &work, num_threads);
    else run(&work);
    free(work.room);
    return 0;
}
