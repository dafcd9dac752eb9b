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

#include "core/answer.h"
#include "core/error.h"
#include "core/lock.h"
#include "core/log.h"
#include "core/thread.h"
#include "core/time.h"

#define TICK_NS (20 * NS_PER_MS)
/* Looks that found nothing before the watch sleeps. */
#define QUIET_TICKS 5
/* Looks that find the same call before it is one that stands, where /proc does not tell. */
#define UNTOLD_TICKS 10

struct relay {
	struct list link;
	atomic_uint users; /* who started it, and each thread that may still come back */
	struct loop *loop;
	const char *name;
	enum thread_kind kind;
	void (*run)(void *opaque);
	void *opaque;
	_Atomic uint64_t calls;
	/* Under the lock. */
	int stat_fd;   /* what /proc says of the thread that has the loop; below 0: nothing */
	uint64_t seen; /* of CALLS, by the watch */
	unsigned same; /* looks in a row that saw the same */
	bool offered;  /* to a successor, which has not tried yet */
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

/* Opened while there is a descriptor to be had. */
static void look_at_me(struct relay *relay)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/task/%ld/stat", (long)syscall(SYS_gettid));
	LOCK_GUARD(&lock);
	if (relay->stat_fd >= 0)
		close(relay->stat_fd);
	relay->stat_fd = open(path, O_RDONLY | O_CLOEXEC);
}

static void run(struct relay *relay)
{
	if (setjmp(end_of_thread) != 0)
		return;
	look_at_me(relay);
	relay->run(relay->opaque);
	LOCK_GUARD(&lock);
	close(relay->stat_fd);
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
static enum answer is_sleeping_locked(const struct relay *relay)
{
	char text[256];
	const char *state;
	ssize_t length = pread(relay->stat_fd, text, sizeof(text) - 1, 0);

	lock_assert_mine(&lock);
	text[MAX(length, 0)] = '\0';
	state = strrchr(text, ')');
	if (!state || state[1] != ' ')
		return ANSWER_UNKNOWN;
	return state[2] == 'R' ? ANSWER_NO : ANSWER_YES;
}

static bool stands_locked(const struct relay *relay)
{
	lock_assert_mine(&lock);
	return answer_or(is_sleeping_locked(relay), relay->same >= UNTOLD_TICKS);
}

static void offer_locked(struct relay *relay)
{
	int result = thread_spawn(NULL, relay->name, relay->kind, successor_main, relay);

	lock_assert_mine(&lock);
	relay->offered = result == 0;
	if (result < 0)
		log_warning_limited(relay->name, "relay",
				    "a thread stands in the kernel, and there is none to go on with its work: %s",
				    g_strerror(-result));
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
	relay->same = same ? relay->same + 1 : 0;
	if (same && is_call(calls) && stands_locked(relay))
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

struct relay *relay_start(struct loop *loop, const char *name, enum thread_kind kind, void (*run)(void *opaque),
			  void *opaque, GError **error)
{
	struct relay *relay = g_new0(struct relay, 1);
	int result;

	relay->users = 1;
	relay->loop = loop;
	relay->name = name;
	relay->kind = kind;
	relay->stat_fd = -1;
	relay->run = run;
	relay->opaque = opaque;
	*loop_relay(loop) = relay;
	LOCK_GUARD(&lock);
	result = thread_spawn(NULL, name, kind, first_main, relay);
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
