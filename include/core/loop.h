/* Event loop: one per thread. Sources, posted tasks and timers; work for background
 * threads: core/workers.h.
 *
 * A loop is created anywhere and runs on the thread that calls loop_run().
 * Everything but loop_post() happens on that thread. Callbacks never nest: each is called from loop_run() directly.
 * In mid-callback another thread may go on with the loop: core/relay.h.
 *
 * Before it sleeps, a loop with a busy source may poll its sources for a short,
 * adaptive time, yielding the processor between rounds, if trials show that
 * this pays; an idle loop sleeps in epoll_wait() without a timeout and wakes up
 * for nothing. */
#ifndef LEAFDISK_CORE_LOOP_H
#define LEAFDISK_CORE_LOOP_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/list.h"

struct loop;

/* A source has its turn in every turn of the loop, and wakes the loop when FD
 * (level triggered, EPOLLIN) becomes readable. Owned by the caller; must stay
 * valid until loop_remove_source(). */
struct loop_source {
	int fd;
	/* FD is worth a system call: a sleep was ended by it, or nobody has asked of
	 * late. Set by the loop; cleared by DISPATCH when it has found FD empty, or
	 * is content to be told again. A source that looks elsewhere ignores it. */
	bool readable;
	/* Does what can be done now without blocking; returns how many events
	 * it handled (0: nothing to do). */
	int (*dispatch)(struct loop_source *source);
	/* True while the source expects an event soon (I/O in flight): makes
	 * the loop poll before it sleeps. May be NULL: never busy. */
	bool (*busy)(struct loop_source *source);
	/* Called when the loop is about to sleep, before it works out for how
	 * long. True: there is something to do after all, so the loop takes
	 * another turn instead. May set and cancel timers, not add or
	 * remove sources. May be NULL. */
	bool (*prepare)(struct loop_source *source);
	struct list link;
};

/* A task runs once on the loop it was posted to. Owned by the caller, who may
 * post it again, or free it, from inside RUN. */
struct loop_task {
	void (*run)(struct loop_task *task);
	struct loop_task *next;
};

/* Initialise with loop_timer_init; one deadline at a time. */
struct loop_timer {
	void (*expired)(struct loop_timer *timer);
	uint64_t deadline_ns;
	struct list link;
};

/* NULL and ERROR set when the kernel refuses a descriptor. Starts no thread. */
struct loop *loop_new(GError **error);
/* The loop must not be running and must have no source left. NULL is allowed. */
void loop_free(struct loop *loop);

void loop_add_source(struct loop *loop, struct loop_source *source);
void loop_remove_source(struct loop *loop, struct loop_source *source);

/* Longest time to poll before sleeping, in nanoseconds; 0 turns polling off.
 * The loop shortens it by itself while polling finds nothing. Without this call
 * it is 200 us, and only while trials show that polling pays. */
void loop_set_poll(struct loop *loop, uint64_t longest_ns);

/* Runs until *STOP is true, which is checked after every turn. To stop from
 * another thread, post a task that sets it. Can be called again. */
void loop_run(struct loop *loop, const bool *stop);

/* The loop that runs on this thread, or NULL. */
struct loop *loop_self(void);

/* From any thread. Tasks posted by one thread run in the order posted. */
void loop_post(struct loop *loop, struct loop_task *task);

void loop_timer_init(struct loop_timer *timer, void (*expired)(struct loop_timer *timer));
/* Sets or moves the timer. DEADLINE_NS is on the loop_now_ns() clock. */
void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns);
/* Allowed on a timer that is not set. */
void loop_timer_cancel(struct loop_timer *timer);

/* LOOP's thread may block: steps run on it, one after the other, and need no
 * other thread. */
void loop_run_steps_here(struct loop *loop);
bool loop_runs_steps_here(const struct loop *loop);

/* For core/relay.c: who may move LOOP to another thread; NULL: nobody. */
struct relay;
struct relay **loop_relay(struct loop *loop);

/* CLOCK_MONOTONIC in nanoseconds. Any thread. */
uint64_t loop_now_ns(void);

#endif
