/* Loops whose thread is replaced while it stands in the kernel.
 *
 * `calls` of a relay is raised when its thread begins a call and when it ends one, so
 * it is odd in between. Who raises it has the loop:
 *
 *     the thread, as it comes back       odd -> even, if nobody was before it
 *     the successor, to take over        odd -> even, if it is still that call
 *
 * so exactly one of them goes on, with all that the other has written before.
 *
 * The watch looks at all relays every TICK_NS. A thread that was in one call at two
 * looks, and sleeps in it, as /proc says, is given a successor; one that only waits for
 * a processor is not. Nothing else happens for a relay that makes calls: two atomic
 * operations each. While none does the watch sleeps: it sets `asleep` and then looks
 * again, a relay begins its call and then looks at `asleep`, both in one total order,
 * so that one of them sees the other. */
#include "core/relay.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/error.h"
#include "core/lock.h"
#include "core/log.h"
#include "core/thread.h"
#include "core/time.h"

#define TICK_NS (20 * NS_PER_MS)
/* Looks that found nothing before the watch sleeps. */
#define QUIET_TICKS 5

struct relay {
	struct list link;
	atomic_uint users; /* who started it, and each thread that may still come back */
	struct loop *loop;
	void (*run)(void *opaque);
	void *opaque;
	_Atomic uint64_t calls;
	_Atomic long thread; /* the kernel's number of the one that has the loop */
	uint64_t seen;	     /* of CALLS, by the watch */
	bool offered;	     /* to a successor, which has not tried yet */
	bool over;
};

static struct lock lock = LOCK_INIT(LOCK_RANK_RELAYS);
static struct list relays = LIST_INIT(relays);
static struct condition changed = CONDITION_INIT; /* a relay is over, or an offer */
static struct condition woken = CONDITION_INIT;	  /* the watch is to look */
static bool watched;				  /* there is a watch */
static atomic_bool asleep;

static bool is_call(uint64_t calls)
{
	return calls % 2 != 0;
}

static void let_go(struct relay *relay)
{
	if (atomic_fetch_sub(&relay->users, 1) == 1)
		g_free(relay);
}

/* ---- A call ---------------------------------------------------------------- */

static void wake_watch(void)
{
	LOCK_GUARD(&lock);
	condition_signal(&woken);
}

void relay_leave(struct loop *loop, struct relay_call *call)
{
	*call = (struct relay_call){.relay = *loop_relay(loop)};
	if (!call->relay)
		return;
	call->number = atomic_fetch_add(&call->relay->calls, 1) + 1;
	if (atomic_load(&asleep) && atomic_exchange(&asleep, false))
		wake_watch();
}

bool relay_return(const struct relay_call *call)
{
	uint64_t number = call->number;

	if (!call->relay || atomic_compare_exchange_strong(&call->relay->calls, &number, number + 1))
		return true;
	let_go(call->relay);
	return false;
}

/* ---- Threads --------------------------------------------------------------- */

/* What stood on the stack belonged to the turn that has gone on elsewhere. */
static _Thread_local jmp_buf end_of_thread;

void relay_end_thread(void)
{
	log_debug(LOG_CORE, "a thread comes back from a call, and its loop has another");
	longjmp(end_of_thread, 1);
}

static void run(struct relay *relay)
{
	if (setjmp(end_of_thread) != 0)
		return;
	atomic_store(&relay->thread, syscall(SYS_gettid));
	relay->run(relay->opaque);
	LOCK_GUARD(&lock);
	relay->over = true;
	condition_broadcast(&changed);
}

static void *first_main(void *opaque)
{
	run(opaque);
	return NULL;
}

/* The thread that loses its loop lets go of the relay as it comes back. */
static bool take_over(struct relay *relay)
{
	uint64_t number;
	bool mine;

	LOCK_GUARD(&lock);
	number = relay->seen;
	atomic_fetch_add(&relay->users, 1);
	mine = is_call(number) && atomic_compare_exchange_strong(&relay->calls, &number, number + 1);
	if (!mine)
		atomic_fetch_sub(&relay->users, 1);
	relay->offered = false;
	condition_broadcast(&changed);
	return mine;
}

static void *successor_main(void *opaque)
{
	struct relay *relay = opaque;

	if (!take_over(relay))
		return NULL;
	log_debug(LOG_CORE, "a loop goes on: its thread stands in the kernel");
	run(relay);
	return NULL;
}

/* ---- The watch ------------------------------------------------------------- */

/* Neither running nor waiting for a processor: proc(5), the state behind the name. */
static bool is_sleeping(long thread)
{
	char path[64], text[256];
	const char *state;
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%ld/stat", thread);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[MAX(length, 0)] = '\0';
	state = strrchr(text, ')');
	return state && state[1] == ' ' && state[2] != 'R';
}

static void offer_locked(struct relay *relay)
{
	lock_assert_mine(&lock);
	relay->offered = thread_spawn(NULL, "leafdisk-loop", THREAD_LOOP, successor_main, relay) == 0;
}

/* Whether it has made a call since the last look. */
static bool look_locked(struct relay *relay)
{
	uint64_t calls = atomic_load(&relay->calls);
	bool same = calls == relay->seen;

	lock_assert_mine(&lock);
	if (relay->offered)
		return true;
	relay->seen = calls;
	if (same && is_call(calls) && is_sleeping(atomic_load(&relay->thread)))
		offer_locked(relay);
	return !same || is_call(calls);
}

static bool look_at_all_locked(void)
{
	bool active = false;

	lock_assert_mine(&lock);
	list_foreach(node, &relays)
	{
		active |= look_locked(container_of(node, struct relay, link));
	}
	return active;
}

/* With none active for a while: until one is. */
static void sleep_relock(void)
{
	lock_assert_mine(&lock);
	atomic_store(&asleep, true);
	if (look_at_all_locked())
		atomic_store(&asleep, false);
	while (atomic_load(&asleep) && !list_is_empty(&relays))
		lock_wait(&lock, &woken);
	atomic_store(&asleep, false);
}

static void *watch_main(void *opaque)
{
	unsigned quiet = 0;

	(void)opaque;
	LOCK_GUARD(&lock);
	while (!list_is_empty(&relays)) {
		uint64_t until_ns = loop_now_ns() + TICK_NS;

		quiet = look_at_all_locked() ? 0 : quiet + 1;
		if (quiet > QUIET_TICKS)
			sleep_relock();
		else
			while (lock_wait_until(&lock, &woken, until_ns) && loop_now_ns() < until_ns)
				;
	}
	watched = false;
	return NULL;
}

/* ---- A relay's life -------------------------------------------------------- */

/* Without a watch a loop stays with its thread. */
static void watch_locked(void)
{
	int result = watched ? 0 : thread_spawn(NULL, "leafdisk-relay", THREAD_OTHER, watch_main, NULL);

	lock_assert_mine(&lock);
	if (result < 0)
		log_warning("cannot start a thread that watches the loops: %s; one that stands in the kernel "
			    "is waited for",
			    g_strerror(-result));
	watched = result == 0;
}

struct relay *relay_start(struct loop *loop, void (*run)(void *opaque), void *opaque, GError **error)
{
	struct relay *relay = g_new0(struct relay, 1);
	int result;

	relay->users = 1;
	relay->loop = loop;
	relay->run = run;
	relay->opaque = opaque;
	*loop_relay(loop) = relay;
	LOCK_GUARD(&lock);
	result = thread_spawn(NULL, "leafdisk-loop", THREAD_LOOP, first_main, relay);
	if (result == 0) {
		list_append(&relays, &relay->link);
		watch_locked();
		return relay;
	}
	*loop_relay(loop) = NULL;
	g_free(relay);
	error_set_errno(error, -result, "cannot start a thread");
	return NULL;
}

void relay_join(struct relay *relay)
{
	if (!relay)
		return;
	lock_take(&lock);
	while (!relay->over || relay->offered)
		lock_wait(&lock, &changed);
	list_remove(&relay->link);
	if (list_is_empty(&relays))
		condition_signal(&woken);
	lock_let_go(&lock);
	*loop_relay(relay->loop) = NULL;
	let_go(relay);
}
