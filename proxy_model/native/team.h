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

enum { SPINS = 4096 };

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

/* Seconds of a clock that only goes forward. */
double now(void);

/* Run on `num_threads` threads, or for a while on the calling one alone: where it has waited for the others more than they
 * helped, since other programs had their processors. */
void run_together(const OpenMP *openmp, void (*run)(void *), void *argument, int num_threads);

/* What `run_together` does that by: the calling thread waited for `waited` of the `elapsed` seconds up to `at`; and how
 * many threads it would take then. */
void count_work(int num_threads, double elapsed, double waited, double at);
int team_size(int num_threads, double at);

/* Where a member adds up the seconds that it waits for long, or NULL. */
extern _Thread_local double *waited_here;

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
    for (int spins = 0; spins < SPINS; spins++) {
        if (atomic_load_explicit(&meeting->round, memory_order_acquire) != round) return;
        _mm_pause();
    }
    double since = now();
    while (atomic_load_explicit(&meeting->round, memory_order_acquire) == round) sched_yield();
    if (waited_here) *waited_here += now() - since;
}

/* A member's share of `items`: from `first_of` up to `first_of` the next one. */
static inline int64_t first_of(Member member, int64_t items) { return items * member.number / member.count; }
static inline int64_t end_of(Member member, int64_t items) { return items * (member.number + 1) / member.count; }
