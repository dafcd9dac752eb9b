/* The gate before a disk. */
#include "disk/gate.h"

#include "core/thread.h"

/* How often who closes it is asked whether to go on. */
#define ASK_US (100 * 1000)

void gate_init(struct gate *gate, GMutex *lock, const _Atomic bool *ended, void (*begin)(struct list *node),
	       void (*closing)(struct gate *gate))
{
	*gate = (struct gate){.lock = lock, .ended = ended, .begin = begin, .closing = closing};
	list_init(&gate->parked);
	g_cond_init(&gate->changed);
}

void gate_clear(struct gate *gate)
{
	g_cond_clear(&gate->changed);
}

/* ---- Requests ----------------------------------------------------------------- */

bool gate_enter(struct gate *gate, struct list *node)
{
	bool open;

	g_mutex_lock(gate->lock);
	open = gate->closings == 0;
	if (open)
		gate->active++;
	else
		list_append(&gate->parked, node);
	g_mutex_unlock(gate->lock);
	return open;
}

void gate_leave_locked(struct gate *gate)
{
	if (--gate->active == 0 && gate->closings > 0)
		g_cond_broadcast(&gate->changed);
}

static void release_locked(struct gate *gate)
{
	struct list *node;

	while (gate->closings == 0 && (node = list_pop(&gate->parked))) {
		gate->active++;
		gate->begin(node);
	}
}

void gate_park(struct gate *gate, struct list *node)
{
	g_mutex_lock(gate->lock);
	list_append(&gate->parked, node);
	gate_leave_locked(gate);
	if (gate_has_ended(gate))
		release_locked(gate);
	g_mutex_unlock(gate->lock);
}

bool gate_has_ended(const struct gate *gate)
{
	return gate->ended && *gate->ended;
}

static bool is_waited_behind(struct gate *gate)
{
	bool closing;

	g_mutex_lock(gate->lock);
	closing = gate->closings > 0;
	g_mutex_unlock(gate->lock);
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
	g_mutex_lock(gate->lock);
	while (gate->closings > 0)
		g_cond_wait(&gate->changed, gate->lock);
	gate->active++;
	g_mutex_unlock(gate->lock);
}

void gate_leave(struct gate *gate)
{
	g_mutex_lock(gate->lock);
	gate_leave_locked(gate);
	g_mutex_unlock(gate->lock);
}

/* ---- Who changes the disk -------------------------------------------------------- */

static void begin_closing(struct gate *gate)
{
	thread_assert_may_wait();
	g_mutex_lock(gate->lock);
	gate->closings++;
	g_mutex_unlock(gate->lock);
	gate->closing(gate);
}

/* Whether nothing is in work any more, waited for until UNTIL. */
static bool await_idle(struct gate *gate, gint64 until)
{
	bool idle, waiting = true;

	g_mutex_lock(gate->lock);
	while (gate->active > 0 && waiting)
		waiting = g_cond_wait_until(&gate->changed, gate->lock, until);
	idle = gate->active == 0;
	g_mutex_unlock(gate->lock);
	return idle;
}

bool gate_try_close(struct gate *gate, int64_t patience_us)
{
	gint64 until = g_get_monotonic_time() + patience_us;
	bool closed;

	begin_closing(gate);
	closed = await_idle(gate, until);
	if (!closed)
		gate_open(gate);
	return closed;
}

bool gate_close_while(struct gate *gate, bool (*go_on)(void *opaque), void *opaque)
{
	bool closed;

	begin_closing(gate);
	while (!(closed = await_idle(gate, g_get_monotonic_time() + ASK_US)) && go_on(opaque))
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
	g_mutex_lock(gate->lock);
	gate->closings--;
	g_cond_broadcast(&gate->changed);
	release_locked(gate);
	g_mutex_unlock(gate->lock);
}

bool gate_has_parked(struct gate *gate)
{
	bool has;

	g_mutex_lock(gate->lock);
	has = !list_is_empty(&gate->parked);
	g_mutex_unlock(gate->lock);
	return has;
}

void gate_release(struct gate *gate)
{
	g_mutex_lock(gate->lock);
	release_locked(gate);
	g_mutex_unlock(gate->lock);
}
