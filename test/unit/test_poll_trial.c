/* Whether polling pays: the verdict follows the rates of a made-up load. */
#include "../../src/core/poll_trial.h"

#include <glib.h>

#define MS ((uint64_t)1000000)
#define STEP_NS (MS / 2)
#define SECONDS(n) ((n) * (uint64_t)1000 * MS)

struct load {
	unsigned polling; /* events per step */
	unsigned sleeping;
};

/* Runs LOAD from *NOW_NS for DURATION_NS; returns how much of it was polled, in
 * percent. */
static unsigned run_load(struct poll_trial *trial, struct load load, uint64_t *now_ns, uint64_t duration_ns)
{
	unsigned steps = (unsigned)(duration_ns / STEP_NS), polled = 0, events = 0;

	for (unsigned i = 0; i < steps; i++) {
		bool polls = poll_trial_step(trial, *now_ns += STEP_NS, events);

		events = polls ? load.polling : load.sleeping;
		polled += polls;
	}
	return polled * 100 / steps;
}

static unsigned polled_after_warming(struct load load)
{
	struct poll_trial trial = {0};
	uint64_t now_ns = SECONDS(1000);

	run_load(&trial, load, &now_ns, SECONDS(1));
	return run_load(&trial, load, &now_ns, SECONDS(60));
}

static void test_verdict(void)
{
	g_assert_cmpuint(polled_after_warming((struct load){20, 10}), >, 95);
	g_assert_cmpuint(polled_after_warming((struct load){10, 20}), <, 5);
	g_assert_cmpuint(polled_after_warming((struct load){10, 10}), <, 5);
	g_assert_cmpuint(polled_after_warming((struct load){106, 100}), <, 5);
}

/* The verdict changes with the load, without a pause between the two. */
static void test_load_changes(void)
{
	struct poll_trial trial = {0};
	uint64_t now_ns = SECONDS(1000);

	run_load(&trial, (struct load){20, 10}, &now_ns, SECONDS(20));
	run_load(&trial, (struct load){10, 20}, &now_ns, SECONDS(20));
	g_assert_cmpuint(run_load(&trial, (struct load){10, 20}, &now_ns, SECONDS(20)), <, 5);
	run_load(&trial, (struct load){20, 10}, &now_ns, SECONDS(20));
	g_assert_cmpuint(run_load(&trial, (struct load){20, 10}, &now_ns, SECONDS(20)), >, 95);
}

static void test_small_load_never_polls(void)
{
	struct poll_trial trial = {0};
	uint64_t now_ns = SECONDS(1000);

	for (unsigned i = 0; i < 10000; i++)
		g_assert_false(poll_trial_step(&trial, now_ns += 3 * MS, 2));
}

static void test_pause_ends_polling(void)
{
	struct poll_trial trial = {0};
	uint64_t now_ns = SECONDS(1000);

	run_load(&trial, (struct load){20, 10}, &now_ns, SECONDS(20));
	g_assert_true(trial.pays);
	g_assert_false(poll_trial_step(&trial, now_ns += SECONDS(1), 10000));
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/poll-trial/verdict", test_verdict);
	g_test_add_func("/poll-trial/load-changes", test_load_changes);
	g_test_add_func("/poll-trial/small-load", test_small_load_never_polls);
	g_test_add_func("/poll-trial/pause", test_pause_ends_polling);
	return g_test_run();
}
