/* The gate before a disk: who may begin, who is waited for, who begins anew and when, and
 * that nobody waits behind a gate that closes for what may be closing it. */
#include "disk/gate.h"

#include <pthread.h>

#include "core/bytes.h"
#include "core/loop.h"
#include "core/thread.h"

#define LONG_NS (30 * NS_PER_S)

struct rig {
	struct lock lock;
	struct condition moved;
	struct gate gate;
	_Atomic bool ended;
	unsigned begun;	  /* requests that began anew */
	unsigned closing; /* calls */
	char order[16];	  /* of those that began */
	bool waits;	  /* somebody waits by gate_wait_on() */
};

struct request {
	struct list node;
	struct rig *rig;
	char name;
};

/* Under the lock. */
static void begin(struct list *node)
{
	struct request *request = container_of(node, struct request, node);

	request->rig->order[request->rig->begun++] = request->name;
	condition_broadcast(&request->rig->moved);
}

static void closing(struct gate *gate)
{
	struct rig *rig = container_of(gate, struct rig, gate);

	lock_take(&rig->lock); /* nothing is locked */
	rig->closing++;
	rig->waits = false;
	condition_broadcast(&rig->moved);
	lock_let_go(&rig->lock);
}

static void rig_init(struct rig *rig)
{
	*rig = (struct rig){0};
	lock_init(&rig->lock, LOCK_RANK_DISK);
	condition_init(&rig->moved);
	gate_init(&rig->gate, &rig->lock, &rig->ended, begin, closing);
}

static void rig_clear(struct rig *rig)
{
	g_assert_cmpuint(rig->gate.active, ==, 0);
	g_assert_cmpuint(rig->gate.closings, ==, 0);
	g_assert_false(gate_has_parked(&rig->gate));
	gate_clear(&rig->gate);
	condition_destroy(&rig->moved);
	lock_destroy(&rig->lock);
}

static struct request new_request(struct rig *rig, char name)
{
	return (struct request){.rig = rig, .name = name};
}

static bool enter(struct request *request)
{
	list_init(&request->node);
	LOCK_GUARD(&request->rig->lock);
	return gate_enter_locked(&request->rig->gate, &request->node);
}

static void leave(struct rig *rig)
{
	gate_leave(&rig->gate);
}

static void await_closings(struct rig *rig, unsigned calls)
{
	uint64_t until_ns = loop_now_ns() + LONG_NS;

	LOCK_GUARD(&rig->lock);
	while (rig->closing < calls)
		g_assert_true(lock_wait_until(&rig->lock, &rig->moved, until_ns));
}

static void *close_main(void *opaque)
{
	struct rig *rig = opaque;

	gate_close(&rig->gate);
	return NULL;
}

static void test_open(void)
{
	struct rig rig;
	struct request a = new_request(&rig, 'a'), b = new_request(&rig, 'b');

	rig_init(&rig);
	g_assert_true(enter(&a) && enter(&b));
	g_assert_cmpuint(rig.gate.active, ==, 2);
	leave(&rig);
	leave(&rig);
	rig_clear(&rig);
}

static void test_closed_parks_in_order(void)
{
	struct rig rig;
	struct request a = new_request(&rig, 'a'), b = new_request(&rig, 'b');

	rig_init(&rig);
	gate_close(&rig.gate);
	g_assert_false(enter(&a) || enter(&b));
	g_assert_true(gate_has_parked(&rig.gate));
	gate_release(&rig.gate); /* it is closed */
	g_assert_cmpuint(rig.begun, ==, 0);
	gate_open(&rig.gate);
	g_assert_cmpstr(rig.order, ==, "ab");
	g_assert_cmpuint(rig.gate.active, ==, 2);
	leave(&rig);
	leave(&rig);
	rig_clear(&rig);
}

static void test_close_waits_for_work(void)
{
	struct rig rig;
	struct request a = new_request(&rig, 'a'), b = new_request(&rig, 'b');
	pthread_t closer;

	rig_init(&rig);
	g_assert_true(enter(&a));
	g_assert_cmpint(thread_spawn(&closer, "closer", THREAD_WAITER, close_main, &rig), ==, 0);
	await_closings(&rig, 1);
	g_assert_false(enter(&b)); /* it is closing */
	g_assert_false(gate_try_close(&rig.gate, 1000));
	g_assert_cmpuint(rig.gate.active, ==, 1);
	leave(&rig);
	pthread_join(closer, NULL);
	g_assert_cmpuint(rig.begun, ==, 0);
	gate_open(&rig.gate);
	g_assert_cmpstr(rig.order, ==, "b");
	leave(&rig);
	rig_clear(&rig);
}

static void test_closing_nests(void)
{
	struct rig rig;
	struct request a = new_request(&rig, 'a');

	rig_init(&rig);
	gate_close(&rig.gate);
	g_assert_true(gate_try_close(&rig.gate, 1000));
	g_assert_false(enter(&a));
	gate_open(&rig.gate);
	g_assert_cmpuint(rig.begun, ==, 0);
	gate_open(&rig.gate);
	g_assert_cmpuint(rig.begun, ==, 1);
	leave(&rig);
	rig_clear(&rig);
}

static bool never(void *opaque)
{
	++*(unsigned *)opaque;
	return false;
}

/* Given up, it is open as it was. */
static void test_close_given_up(void)
{
	struct rig rig;
	struct request a = new_request(&rig, 'a'), b = new_request(&rig, 'b');
	unsigned asked = 0;

	rig_init(&rig);
	g_assert_true(enter(&a));
	g_assert_false(gate_close_while(&rig.gate, never, &asked));
	g_assert_cmpuint(asked, ==, 1);
	g_assert_true(enter(&b));
	leave(&rig);
	leave(&rig);
	g_assert_true(gate_close_while(&rig.gate, never, &asked));
	g_assert_cmpuint(asked, ==, 1);
	gate_open(&rig.gate);
	rig_clear(&rig);
}

/* What goes back before the gate is not in work, and is not waited for. */
static void test_park(void)
{
	struct rig rig;
	struct request a = new_request(&rig, 'a');

	rig_init(&rig);
	g_assert_true(enter(&a));
	gate_park(&rig.gate, &a.node);
	gate_close(&rig.gate);
	g_assert_cmpuint(rig.begun, ==, 0);
	gate_open(&rig.gate);
	g_assert_cmpuint(rig.begun, ==, 1);
	leave(&rig);
	rig_clear(&rig);
}

static void test_park_at_the_end(void)
{
	struct rig rig;
	struct request a = new_request(&rig, 'a');

	rig_init(&rig);
	g_assert_true(enter(&a));
	rig.ended = true;
	gate_park(&rig.gate, &a.node);
	g_assert_cmpuint(rig.begun, ==, 1);
	leave(&rig);
	rig_clear(&rig);
}

/* ---- Waiting for who may close it --------------------------------------------- */

static void enqueue(void *opaque)
{
	struct rig *rig = opaque;

	LOCK_GUARD(&rig->lock);
	rig->waits = true;
}

static void wake(void *opaque)
{
	struct rig *rig = opaque;

	LOCK_GUARD(&rig->lock);
	rig->waits = false;
	condition_broadcast(&rig->moved);
}

static void test_wait_on(void)
{
	struct rig rig;

	rig_init(&rig);
	g_assert_true(gate_wait_on(&rig.gate, enqueue, wake, &rig));
	g_assert_true(rig.waits);
	gate_close(&rig.gate);
	g_assert_false(rig.waits); /* woken by the closing */
	g_assert_false(gate_wait_on(&rig.gate, enqueue, wake, &rig));
	g_assert_false(rig.waits);
	gate_open(&rig.gate);
	rig.ended = true;
	g_assert_false(gate_wait_on(&rig.gate, enqueue, wake, &rig));
	rig_clear(&rig);
}

/* It closes, or ends, while the wait begins: after those that waited were woken. */
static void enqueue_late(void *opaque)
{
	struct rig *rig = opaque;

	gate_close(&rig->gate);
	enqueue(rig);
}

static void enqueue_at_the_end(void *opaque)
{
	struct rig *rig = opaque;

	rig->ended = true;
	enqueue(rig);
}

static void test_wait_on_too_late(void)
{
	struct rig rig;

	rig_init(&rig);
	g_assert_true(gate_wait_on(&rig.gate, enqueue_late, wake, &rig));
	g_assert_false(rig.waits);
	gate_open(&rig.gate);
	g_assert_true(gate_wait_on(&rig.gate, enqueue_at_the_end, wake, &rig));
	g_assert_false(rig.waits);
	rig_clear(&rig);
}

/* ---- Many at once ---------------------------------------------------------------- */

#define WORKERS 4
#define TURNS 2000

static void *work_main(void *opaque)
{
	struct rig *rig = opaque;

	for (unsigned i = 0; i < TURNS; i++) {
		gate_wait(&rig->gate);
		if (!gate_wait_on(&rig->gate, enqueue, wake, rig))
			wake(rig);
		leave(rig);
	}
	return NULL;
}

/* Who works between wait and leave is never there while it is closed. */
static void test_many(void)
{
	pthread_t workers[WORKERS];
	struct rig rig;

	rig_init(&rig);
	for (unsigned i = 0; i < WORKERS; i++)
		g_assert_cmpint(thread_spawn(&workers[i], "worker", THREAD_WAITER, work_main, &rig), ==, 0);
	for (unsigned i = 0; i < TURNS; i++) {
		gate_close(&rig.gate);
		lock_take(&rig.lock);
		g_assert_cmpuint(rig.gate.active, ==, 0);
		lock_let_go(&rig.lock);
		gate_open(&rig.gate);
	}
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(workers[i], NULL);
	g_assert_cmpuint(rig.closing, ==, TURNS);
	rig_clear(&rig);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/gate/open", test_open);
	g_test_add_func("/gate/closed-parks-in-order", test_closed_parks_in_order);
	g_test_add_func("/gate/close-waits-for-work", test_close_waits_for_work);
	g_test_add_func("/gate/closing-nests", test_closing_nests);
	g_test_add_func("/gate/close-given-up", test_close_given_up);
	g_test_add_func("/gate/park", test_park);
	g_test_add_func("/gate/park-at-the-end", test_park_at_the_end);
	g_test_add_func("/gate/wait-on", test_wait_on);
	g_test_add_func("/gate/wait-on-too-late", test_wait_on_too_late);
	g_test_add_func("/gate/many", test_many);
	return g_test_run();
}
