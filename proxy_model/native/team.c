#include "team.h"

#include <time.h>

/* Seconds to judge by, and to work alone for before another try. */
static const double WINDOW = 0.05, ALONE = 1.0;

/* What each thread more adds to the speed of one, about. */
static const double GAIN = 0.7;

/* How long the calling thread has worked with others and waited for them, and until when it works alone. */
static _Thread_local struct {
    double elapsed, waited, alone_until;
} past;

double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

int team_size(int num_threads, double at) { return at < past.alone_until ? 1 : num_threads; }

void count_work(int num_threads, double elapsed, double waited, double at) {
    past.elapsed += elapsed;
    past.waited += waited;
    if (past.elapsed < WINDOW) return;
    double speed = (1.0 + GAIN * (num_threads - 1)) * (1.0 - past.waited / past.elapsed);
    if (speed < 1.0) past.alone_until = at + ALONE;
    past.elapsed = past.waited = 0.0;
}

typedef struct {
    void (*run)(void *);
    void *argument;
    const OpenMP *openmp;
    double waited, finished; /* of the first member */
} Together;

_Thread_local double *waited_here;

static void run_member(void *argument) {
    Together *together = argument;
    int is_first = together->openmp->thread_number() == 0;
    waited_here = is_first ? &together->waited : NULL;
    together->run(together->argument);
    waited_here = NULL;
    if (is_first) together->finished = now();
}

void run_together(const OpenMP *openmp, void (*run)(void *), void *argument, int num_threads) {
    double started = now();
    int size = team_size(num_threads, started);
    Together together = {run, argument, openmp, 0.0, started};
    openmp->parallel(run_member, &together, size, 0);
    double ended = now();
    if (size > 1) count_work(size, ended - started, together.waited + ended - together.finished, ended);
}
