/* The gate before a disk. */
#include "disk/gate.h"

#include "core/loop.h"
#include "core/thread.h"

/* How often who closes it is asked whether to go on. */
#define ASK_NS (100 * NS_PER_MS)

void gate_init(struct gate *gate, struct lock *lock, const _Atomic bool *ended, void (*begin)(struct list *node),
	       void (*closing)(struct gate *gate))
{
	*gate = (struct gate){.lock = lock, .ended = ended, .begin = begin, .closing = closing};
	list_init(&gate->parked);
	condition_init(&gate->changed);
}

void gate_clear(struct gate *gate)
{
	condition_destroy(&gate->changed);
}

/* ---- Requests ----------------------------------------------------------------- */

bool gate_enter_locked(struct gate *gate, struct list *node)
{
	bool open = gate->closings == 0;

	lock_assert_mine(gate->lock);
	if (open)
		gate->active++;
	else
		list_append(&gate->parked, node);
	return open;
}

void gate_leave_locked(struct gate *gate)
{
	lock_assert_mine(gate->lock);
	if (--gate->active == 0 && gate->closings > 0)
		condition_broadcast(&gate->changed);
}

static void release_locked(struct gate *gate)
{
	struct list *node;

	lock_assert_mine(gate->lock);
	while (gate->closings == 0 && (node = list_pop(&gate->parked))) {
		gate->active++;
		gate->begin(node);
	}
}

void gate_park(struct gate *gate, struct list *node)
{
	LOCK_GUARD(gate->lock);
	list_append(&gate->parked, node);
	gate_leave_locked(gate);
	if (gate_has_ended(gate))
		release_locked(gate);
}

bool gate_has_ended(const struct gate *gate)
{
	return gate->ended && *gate->ended;
}

static bool is_waited_behind(struct gate *gate)
{
	bool closing;

	lock_take(gate->lock);
	closing = gate->closings > 0;
	lock_let_go(gate->lock);
	return !closing && !gate_has_ended(gate);
}

bool gate_wait_on(struct gate *gate, void (*enqueue)(void *opaque), void (*wake)(void *opaque), void *opaque)
{
	if (!is_waited_behind(gate))
		return false;
	enqueue(opaque);
	if (!is_waited_behind(gate))
		wake(opaque);
	return true;
}

/* ---- Who only looks ------------------------------------------------------------ */

void gate_wait(struct gate *gate)
{
	thread_assert_may_wait();
	LOCK_GUARD(gate->lock);
	while (gate->closings > 0)
		lock_wait(gate->lock, &gate->changed);
	gate->active++;
}

void gate_leave(struct gate *gate)
{
	LOCK_GUARD(gate->lock);
	gate_leave_locked(gate);
}

/* ---- Who changes the disk -------------------------------------------------------- */

static void begin_closing(struct gate *gate)
{
	thread_assert_may_wait();
	lock_take(gate->lock);
	gate->closings++;
	lock_let_go(gate->lock);
	gate->closing(gate);
}

/* Whether nothing is in work any more, waited for until UNTIL_NS. */
static bool await_idle(struct gate *gate, uint64_t until_ns)
{
	bool waiting = true;

	LOCK_GUARD(gate->lock);
	while (gate->active > 0 && waiting)
		waiting = lock_wait_until(gate->lock, &gate->changed, until_ns);
	return gate->active == 0;
}

bool gate_try_close(struct gate *gate, int64_t patience_us)
{
	uint64_t until_ns = loop_now_ns() + (uint64_t)patience_us * NS_PER_US;
	bool closed;

	begin_closing(gate);
	closed = await_idle(gate, until_ns);
	if (!closed)
		gate_open(gate);
	return closed;
}

bool gate_close_while(struct gate *gate, bool (*go_on)(void *opaque), void *opaque)
{
	bool closed;

	begin_closing(gate);
	while (!(closed = await_idle(gate, loop_now_ns() + ASK_NS)) && go_on(opaque))
		;
	if (!closed)
		gate_open(gate);
	return closed;
}

static bool go_on_for_ever(void *opaque)
{
	(void)opaque;
	return true;
}

void gate_close(struct gate *gate)
{
	(void)gate_close_while(gate, go_on_for_ever, NULL);
}

void gate_open(struct gate *gate)
{
	LOCK_GUARD(gate->lock);
	gate->closings--;
	condition_broadcast(&gate->changed);
	release_locked(gate);
}

bool gate_has_parked(struct gate *gate)
{
	LOCK_GUARD(gate->lock);
	return !list_is_empty(&gate->parked);
}

void gate_release(struct gate *gate)
{
	LOCK_GUARD(gate->lock);
	release_locked(gate);
}
