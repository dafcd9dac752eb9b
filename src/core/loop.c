/* Event loop: sources, posted tasks and timers.
 *
 * A turn dispatches every source once, runs the tasks posted so far and the
 * timers that are due. After a turn that found nothing the loop polls, if a
 * source is busy, and then sleeps.
 *
 * Descriptors. A sleep says which of them are readable, and its word is good for
 * LOOK_TURNS turns: with one request at a time the loop sleeps again by then. A
 * loop that does not sleep, as it polls or always finds something to do, has every
 * source ask for itself: that costs no more than epoll_wait() and brings the
 * message at once.
 *
 * Posting. `posted` is a stack that any thread pushes on and only the loop
 * takes, whole, turning it over so that each thread's tasks keep their order.
 *   1. The loop sets `sleeping` and then looks at `posted`; a poster pushes and
 *      then looks at `sleeping`. Both in one total order (seq_cst), so at least
 *      one of them sees the other: no wake-up is lost.
 *   2. Who turns `sleeping` from true to false writes the eventfd: one write
 *      for each sleep, none while the loop is awake.
 *   3. A task may stop the loop and have it freed while its poster is still in
 *      loop_post(); `posters` counts those, and loop_free() waits for them.
 * The eventfd is edge triggered and never read: each write is an edge.
 *
 * Polling. Whether it pays is on trial (poll_trial.c), unless the loop's owner
 * has set it. The window starts at the longest and doubles whenever an event
 * came within the longest time, whether the loop still polled or slept already;
 * it halves when nothing came that early. */
#include "core/loop.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"
#include "core/log.h"
#include "core/time.h"
#include "poll_trial.h"

#define LONGEST_POLL_NS 200000
#define SHORTEST_POLL_NS 2000
#define LOOK_TURNS 2
/* Named by one sleep; of more, the next sleep names the rest. */
#define NAMED_MAX 16

struct loop {
	struct list sources;
	struct list *current; /* the source being dispatched, or where it was: the pass goes on behind it */
	struct list timers;   /* soonest first */
	uint64_t longest_ns;
	uint64_t window_ns;
	bool on_trial; /* polling */
	struct poll_trial trial;
	unsigned events; /* handled since the trial's last step */
	unsigned turns;	 /* since the descriptors were looked at */
	int epoll_fd;
	int wake_fd;
	bool steps_here;
	struct relay *relay;
	bool unwatched; /* the kernel refused to watch a source: sleep in short naps */
	_Atomic(struct loop_task *) posted;
	atomic_bool sleeping;
	atomic_uint posters;
};

static _Thread_local struct loop *current_loop;

uint64_t loop_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

struct loop *loop_self(void)
{
	return current_loop;
}

static bool open_descriptors(struct loop *loop, GError **error)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};

	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0)
		return error_set_errno(error, errno, "cannot create an epoll descriptor");
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->wake_fd < 0)
		return error_set_errno(error, errno, "cannot create an event descriptor");
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event) < 0)
		return error_set_errno(error, errno, "cannot watch an event descriptor");
	return true;
}

struct loop *loop_new(GError **error)
{
	struct loop *loop = g_new0(struct loop, 1);

	loop->epoll_fd = -1;
	loop->wake_fd = -1;
	list_init(&loop->sources);
	list_init(&loop->timers);
	loop_set_poll(loop, LONGEST_POLL_NS);
	loop->on_trial = true;
	if (!open_descriptors(loop, error)) {
		loop_free(loop);
		return NULL;
	}
	return loop;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	g_assert(list_is_empty(&loop->sources));
	while (atomic_load_explicit(&loop->posters, memory_order_acquire) > 0)
		sched_yield();
	/* So that a timer can still be cancelled after its loop is gone. */
	while (list_pop(&loop->timers))
		;
	if (loop->wake_fd >= 0)
		close(loop->wake_fd);
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	g_free(loop);
}

void loop_add_source(struct loop *loop, struct loop_source *source)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = source};

	source->readable = true;
	list_append(&loop->sources, &source->link);
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) == 0)
		return;
	log_warning("cannot watch descriptor %d: %s; looking at it every millisecond", source->fd, g_strerror(errno));
	loop->unwatched = true;
}

void loop_remove_source(struct loop *loop, struct loop_source *source)
{
	if (loop->current == &source->link)
		loop->current = source->link.prev;
	list_remove(&source->link);
	/* Fails for a descriptor that is closed or was never watched. */
	(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
}

void loop_set_poll(struct loop *loop, uint64_t longest_ns)
{
	loop->longest_ns = longest_ns;
	loop->window_ns = longest_ns;
	loop->on_trial = false;
}

void loop_post(struct loop *loop, struct loop_task *task)
{
	const uint64_t one = 1;
	struct loop_task *head;

	atomic_fetch_add_explicit(&loop->posters, 1, memory_order_relaxed);
	head = atomic_load_explicit(&loop->posted, memory_order_relaxed);
	do
		task->next = head;
	while (!atomic_compare_exchange_weak(&loop->posted, &head, task));
	/* The write cannot fail: the counter would need 2^64 sleeps to be full. */
	if (atomic_load(&loop->sleeping) && atomic_exchange(&loop->sleeping, false))
		while (write(loop->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
			;
	atomic_fetch_sub_explicit(&loop->posters, 1, memory_order_release);
}

void loop_timer_init(struct loop_timer *timer, void (*expired)(struct loop_timer *timer))
{
	timer->expired = expired;
	timer->deadline_ns = 0;
	list_init(&timer->link);
}

/* Searches from the end: most timers are set later than those already set. */
void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns)
{
	struct list *position = &loop->timers;

	list_remove(&timer->link);
	timer->deadline_ns = deadline_ns;
	while (position->prev != &loop->timers &&
	       container_of(position->prev, struct loop_timer, link)->deadline_ns > deadline_ns)
		position = position->prev;
	list_insert_before(position, &timer->link);
}

void loop_timer_cancel(struct loop_timer *timer)
{
	list_remove(&timer->link);
}

void loop_run_steps_here(struct loop *loop)
{
	loop->steps_here = true;
}

bool loop_runs_steps_here(const struct loop *loop)
{
	return loop->steps_here;
}

struct relay **loop_relay(struct loop *loop)
{
	return &loop->relay;
}

/* A source that is added meanwhile has its turn too, before the loop sleeps. */
static unsigned dispatch_sources(struct loop *loop)
{
	unsigned events = 0;

	loop->current = loop->sources.next;
	while (loop->current != &loop->sources) {
		struct loop_source *source = container_of(loop->current, struct loop_source, link);
		int handled = source->dispatch(source);

		if (handled > 0)
			events += (unsigned)handled;
		loop->current = loop->current->next;
	}
	return events;
}

static struct loop_task *take_posted(struct loop *loop)
{
	struct loop_task *task = NULL;
	struct loop_task *newest;

	if (!atomic_load_explicit(&loop->posted, memory_order_relaxed))
		return NULL;
	newest = atomic_exchange_explicit(&loop->posted, NULL, memory_order_acquire);
	while (newest) {
		struct loop_task *older = newest->next;

		newest->next = task;
		task = newest;
		newest = older;
	}
	return task;
}

/* What the tasks post runs in the next turn. */
static unsigned run_tasks(struct loop *loop)
{
	struct loop_task *task = take_posted(loop);
	unsigned events = 0;

	while (task) {
		struct loop_task *next = task->next;

		task->run(task);
		task = next;
		events++;
	}
	return events;
}

static void take_expired(struct loop *loop, struct list *expired)
{
	uint64_t now = loop_now_ns();
	struct list *first;

	while ((first = list_first(&loop->timers)) &&
	       container_of(first, struct loop_timer, link)->deadline_ns <= now) {
		list_remove(first);
		list_append(expired, first);
	}
}

/* A timer that sets itself again, however early, waits for the next turn; one
 * that a callback before it cancels or moves leaves `expired` by that. */
static unsigned run_timers(struct loop *loop)
{
	struct list expired = LIST_INIT(expired);
	struct list *node;
	unsigned events = 0;

	if (list_is_empty(&loop->timers))
		return 0;
	take_expired(loop, &expired);
	while ((node = list_pop(&expired))) {
		struct loop_timer *timer = container_of(node, struct loop_timer, link);

		timer->expired(timer);
		events++;
	}
	return events;
}

static void let_all_ask(struct loop *loop)
{
	loop->turns = 0;
	list_foreach(node, &loop->sources)
	{
		container_of(node, struct loop_source, link)->readable = true;
	}
}

static unsigned run_turn(struct loop *loop)
{
	unsigned events;

	if (++loop->turns > LOOK_TURNS || loop->unwatched)
		let_all_ask(loop);
	events = dispatch_sources(loop);
	events += run_tasks(loop);
	events += run_timers(loop);
	loop->events += events;
	return events;
}

static bool is_busy(const struct loop *loop)
{
	list_foreach(node, &loop->sources)
	{
		struct loop_source *source = container_of(node, struct loop_source, link);

		if (source->busy && source->busy(source))
			return true;
	}
	return false;
}

/* Up to a millisecond late rather than early, which would spin. */
static int sleep_timeout_ms(const struct loop *loop)
{
	struct list *first = list_first(&loop->timers);
	int longest_ms = loop->unwatched ? 1 : -1;
	uint64_t deadline_ns;
	uint64_t now;

	if (!first)
		return longest_ms;
	deadline_ns = container_of(first, struct loop_timer, link)->deadline_ns;
	now = loop_now_ns();
	if (deadline_ns <= now)
		return 0;
	return (int)MIN((deadline_ns - now) / NS_PER_MS + 1, (uint64_t)(longest_ms < 0 ? INT_MAX : longest_ms));
}

/* True when a source has something to do after all. */
static bool prepare_sources(const struct loop *loop)
{
	bool work = false;

	list_foreach(node, &loop->sources)
	{
		struct loop_source *source = container_of(node, struct loop_source, link);

		if (source->prepare && source->prepare(source))
			work = true;
	}
	return work;
}

static void sleep_for(struct loop *loop, int timeout_ms)
{
	struct epoll_event named[NAMED_MAX];
	int count = epoll_wait(loop->epoll_fd, named, NAMED_MAX, timeout_ms);

	for (int i = 0; i < count; i++) {
		struct loop_source *source = named[i].data.ptr;

		if (source)
			source->readable = true;
	}
	loop->turns = 0;
	log_debug_data(LOG_CORE, "a loop has slept until %d of its descriptors had something", MAX(count, 0));
}

static void sleep_until_event(struct loop *loop)
{
	int timeout_ms;

	if (prepare_sources(loop))
		return;
	timeout_ms = sleep_timeout_ms(loop);
	atomic_store(&loop->sleeping, true);
	if (!atomic_load(&loop->posted))
		sleep_for(loop, timeout_ms);
	atomic_store_explicit(&loop->sleeping, false, memory_order_relaxed);
}

/* Turns with a yield between them until something happened (true) or the
 * window is over or no source is busy any more (false). */
static bool poll_for_event(struct loop *loop, const bool *stop, uint64_t start)
{
	do {
		sched_yield();
		let_all_ask(loop);
		if (run_turn(loop) > 0 || *stop)
			return true;
	} while (loop_now_ns() - start < loop->window_ns && is_busy(loop));
	return false;
}

static void adapt_window(struct loop *loop, bool came_early)
{
	if (came_early)
		loop->window_ns *= 2;
	else
		loop->window_ns /= 2;
	loop->window_ns = MIN(MAX(loop->window_ns, SHORTEST_POLL_NS), loop->longest_ns);
}

static bool may_poll(struct loop *loop, uint64_t now)
{
	bool pays = !loop->on_trial || poll_trial_step(&loop->trial, now, loop->events);

	loop->events = 0;
	return pays && loop->longest_ns > 0 && is_busy(loop);
}

static void wait_for_event(struct loop *loop, const bool *stop)
{
	uint64_t start = loop_now_ns();

	if (!may_poll(loop, start)) {
		sleep_until_event(loop);
		return;
	}
	if (!poll_for_event(loop, stop, start))
		sleep_until_event(loop);
	adapt_window(loop, loop_now_ns() - start <= loop->longest_ns);
}

void loop_run(struct loop *loop, const bool *stop)
{
	struct loop *outer = current_loop;

	current_loop = loop;
	while (!*stop) {
		unsigned events = run_turn(loop);

		if (events == 0 && !*stop)
			wait_for_event(loop, stop);
	}
	current_loop = outer;
}
