/* Loops whose thread is replaced while it stands in a call. */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "core/loop.h"
#include "core/relay.h"
#include "core/time.h"

#define PATIENCE_NS (30 * NS_PER_S)

/* One loop, which counts its ticks and is told to make calls. */
struct rig {
	struct loop *loop;
	struct relay *relay;
	struct loop_timer tick;
	atomic_uint ticks;
	bool stop;
	pthread_t threads[8];
	unsigned begun; /* RUN was called so often; on the loop */
};

struct call {
	struct loop_task task;
	struct loop_task late;
	struct rig *rig;
	atomic_bool held; /* the call lasts as long */
	bool spins;	  /* it runs all that time, instead of sleeping */
	atomic_bool begun;
	atomic_bool returned; /* to the thread that has the loop */
	atomic_bool came_late;
};

static void run(void *opaque)
{
	struct rig *rig = opaque;

	g_assert_cmpuint(rig->begun, <, G_N_ELEMENTS(rig->threads));
	rig->threads[rig->begun++] = pthread_self();
	loop_run(rig->loop, &rig->stop);
}

static void tick(struct loop_timer *timer)
{
	struct rig *rig = container_of(timer, struct rig, tick);

	g_assert_true(pthread_equal(pthread_self(), rig->threads[rig->begun - 1]));
	atomic_fetch_add(&rig->ticks, 1);
	loop_timer_set(rig->loop, timer, loop_now_ns() + NS_PER_MS);
}

static void rig_open(struct rig *rig)
{
	*rig = (struct rig){.loop = loop_new(NULL)};
	g_assert_nonnull(rig->loop);
	loop_timer_init(&rig->tick, tick);
	loop_timer_set(rig->loop, &rig->tick, 0);
	rig->relay = relay_start(rig->loop, "relayed", THREAD_LOOP, run, rig, NULL);
	g_assert_nonnull(rig->relay);
}

static void stop_run(struct loop_task *task)
{
	struct call *stop = container_of(task, struct call, task);

	loop_timer_cancel(&stop->rig->tick);
	stop->rig->stop = true;
}

static void rig_close(struct rig *rig)
{
	struct call stop = {.task.run = stop_run, .rig = rig};

	loop_post(rig->loop, &stop.task);
	relay_join(rig->relay);
	loop_free(rig->loop);
}

static void late_run(struct loop_task *task)
{
	atomic_store(&container_of(task, struct call, late)->came_late, true);
}

static void wait_here(const struct call *call)
{
	while (atomic_load(&call->held))
		if (!call->spins)
			g_usleep(100);
}

/* A task as well as a source's turn, as there is no other in the turn. */
static void call_run(struct loop_task *task)
{
	struct call *call = container_of(task, struct call, task);
	struct loop *loop = call->rig->loop;
	struct relay_call relayed;

	relay_leave(loop, &relayed);
	atomic_store(&call->begun, true);
	wait_here(call);
	if (relay_return(&relayed)) {
		atomic_store(&call->returned, true);
		return;
	}
	call->late.run = late_run;
	loop_post(loop, &call->late);
	relay_end_thread();
}

static void wait_for(atomic_bool *flag)
{
	uint64_t until = loop_now_ns() + PATIENCE_NS;

	while (!atomic_load(flag) && loop_now_ns() < until)
		g_usleep(100);
	g_assert_true(atomic_load(flag));
}

static void wait_for_ticks(struct rig *rig, unsigned more)
{
	uint64_t until = loop_now_ns() + PATIENCE_NS;
	unsigned target = atomic_load(&rig->ticks) + more;

	while (atomic_load(&rig->ticks) < target && loop_now_ns() < until)
		g_usleep(100);
	g_assert_cmpuint(atomic_load(&rig->ticks), >=, target);
}

static void begin(struct rig *rig, struct call *call, bool spins)
{
	*call = (struct call){.task.run = call_run, .rig = rig, .spins = spins};
	atomic_store(&call->held, true);
	loop_post(rig->loop, &call->task);
	wait_for(&call->begun);
}

static void end(struct call *call)
{
	atomic_store(&call->held, false);
}

static void test_short_calls(void)
{
	struct rig rig;

	rig_open(&rig);
	for (unsigned i = 0; i < 1000; i++) {
		struct call call = {.task.run = call_run, .rig = &rig};

		loop_post(rig.loop, &call.task);
		wait_for(&call.returned);
	}
	rig_close(&rig);
	g_assert_cmpuint(rig.begun, ==, 1);
}

/* Also one thread after the other, in calls that end in any order. */
static void test_long_calls(void)
{
	struct rig rig;
	struct call calls[5];

	rig_open(&rig);
	for (unsigned i = 0; i < G_N_ELEMENTS(calls); i++) {
		begin(&rig, &calls[i], false);
		wait_for_ticks(&rig, 20);
	}
	for (unsigned i = 0; i < G_N_ELEMENTS(calls); i++) {
		struct call *call = &calls[i * 3 % G_N_ELEMENTS(calls)];

		end(call);
		wait_for(&call->came_late);
		g_assert_false(atomic_load(&call->returned));
	}
	wait_for_ticks(&rig, 20);
	rig_close(&rig);
	g_assert_cmpuint(rig.begun, ==, 1 + G_N_ELEMENTS(calls));
}

/* Work, and a processor that others have, are no reason. */
static void test_busy_call(void)
{
	struct rig rig;
	struct call call;

	rig_open(&rig);
	begin(&rig, &call, true);
	g_usleep(200000);
	end(&call);
	wait_for(&call.returned);
	rig_close(&rig);
	g_assert_cmpuint(rig.begun, ==, 1);
}

/* The watch sleeps by then. */
static void test_after_a_pause(void)
{
	struct rig rig;
	struct call call;

	rig_open(&rig);
	g_usleep(400000);
	begin(&rig, &call, false);
	wait_for_ticks(&rig, 20);
	end(&call);
	wait_for(&call.came_late);
	rig_close(&rig);
}

/* One loop's calls are no other's business. */
static void test_two_loops(void)
{
	struct rig first, second;
	struct call call;

	rig_open(&first);
	rig_open(&second);
	begin(&first, &call, false);
	wait_for_ticks(&second, 100);
	wait_for_ticks(&first, 20);
	rig_close(&second);
	end(&call);
	wait_for(&call.came_late);
	rig_close(&first);
	g_assert_cmpuint(second.begun, ==, 1);
}

/* A call that ends just as the watch takes it for a long one. */
static void test_races(void)
{
	unsigned late = 0;
	struct rig rig;

	rig_open(&rig);
	for (unsigned i = 0; i < 6; i++) {
		struct call call;

		begin(&rig, &call, false);
		g_usleep(20000 + (gulong)i * 4000);
		end(&call);
		while (!atomic_load(&call.returned) && !atomic_load(&call.came_late))
			g_usleep(100);
		late += atomic_load(&call.came_late);
		g_assert_false(atomic_load(&call.returned) && atomic_load(&call.came_late));
	}
	wait_for_ticks(&rig, 5);
	rig_close(&rig);
	g_assert_cmpuint(rig.begun, ==, 1 + late);
}

static void ignore(void *opaque)
{
	(void)opaque;
}

/* Without a relay, and after it, the calls are the loop's own. */
static void test_no_relay(void)
{
	struct loop *loop = loop_new(NULL);
	struct relay_call call;
	struct relay *relay;

	relay_leave(loop, &call);
	g_assert_true(relay_return(&call));
	relay = relay_start(loop, "relayed", THREAD_LOOP, ignore, NULL, NULL);
	g_assert_true(*loop_relay(loop) == relay);
	relay_join(relay);
	g_assert_null(*loop_relay(loop));
	relay_join(NULL);
	loop_free(loop);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/relay/short-calls", test_short_calls);
	g_test_add_func("/relay/long-calls", test_long_calls);
	g_test_add_func("/relay/busy-call", test_busy_call);
	g_test_add_func("/relay/after-a-pause", test_after_a_pause);
	g_test_add_func("/relay/two-loops", test_two_loops);
	g_test_add_func("/relay/races", test_races);
	g_test_add_func("/relay/none", test_no_relay);
	return g_test_run();
}
