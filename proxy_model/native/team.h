/* Threads that work on one thing together: torch's own OpenMP threads, so that no two pools fight for processors. */
#pragma once

#include <immintrin.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

/* The functions of the OpenMP runtime that torch has loaded. */
typedef struct {
    void (*parallel)(void (*run)(void *), void *argument, unsigned num_threads, unsigned flags);
    int (*thread_number)(void);
    int (*num_threads)(void);
} OpenMP;

typedef struct {
    atomic_int waiting, round;
} Meeting;

typedef struct {
    Meeting *meeting;
    int number, count;
} Member;

static inline Member join(const OpenMP *openmp, Meeting *meeting) {
    return openmp ? (Member){meeting, openmp->thread_number(), openmp->num_threads()} : (Member){meeting, 0, 1};
}

/* Wait until every member is here. They are rarely far apart, so waiting spins, and after a while yields. */
static inline void meet(Member member) {
    Meeting *meeting = member.meeting;
    if (member.count == 1) return;
    int round = atomic_load_explicit(&meeting->round, memory_order_relaxed);
    if (atomic_fetch_add(&meeting->waiting, 1) == member.count - 1) {
        atomic_store_explicit(&meeting->waiting, 0, memory_order_relaxed);
        atomic_fetch_add(&meeting->round, 1);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&meeting->round, memory_order_acquire) == round; spins++)
        if (spins < 4096) _mm_pause();
        else sched_yield();
}

/* A member's share of `items`: from `first_of` up to `first_of` the next one. */
static inline int64_t first_of(Member member, int64_t items) { return items * member.number / member.count; }
static inline int64_t end_of(Member member, int64_t items) { return items * (member.number + 1) / member.count; }
