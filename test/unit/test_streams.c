/* Sequential streams: the run that a read continues, with others in between. */
#include "disk/streams.h"

#include <glib.h>

#define READ_BYTES 4096u
#define FAR (UINT64_C(1) << 40)

/* Stream NUMBER's read STEP. */
static uint64_t note(struct streams *streams, unsigned number, unsigned step)
{
	return streams_note(streams, number * FAR + (uint64_t)step * READ_BYTES, READ_BYTES);
}

static void test_run_grows(void)
{
	struct streams streams = {0};

	g_assert_cmpuint(streams_note(&streams, 8192, 4096), ==, 4096);
	g_assert_cmpuint(streams_note(&streams, 12288, 512), ==, 4608);
	g_assert_cmpuint(streams_note(&streams, 12800, 1 << 20), ==, 4608 + (1 << 20));
}

/* Nobody has read up to the first byte of a disk, though an unused stream's end is 0. */
static void test_first_byte(void)
{
	struct streams streams = {0};

	g_assert_cmpuint(streams_note(&streams, 0, 100), ==, 100);
	g_assert_cmpuint(streams_note(&streams, 0, 100), ==, 100);
	g_assert_cmpuint(streams_note(&streams, 100, 100), ==, 200);
}

/* Behind a gap, backwards, or over the same bytes again: another run. */
static void test_run_ends(void)
{
	struct streams streams = {0};

	g_assert_cmpuint(note(&streams, 1, 4), ==, READ_BYTES);
	g_assert_cmpuint(note(&streams, 1, 6), ==, READ_BYTES);
	g_assert_cmpuint(note(&streams, 1, 3), ==, READ_BYTES);
	g_assert_cmpuint(note(&streams, 1, 6), ==, READ_BYTES);
}

static void test_readers_side_by_side(void)
{
	struct streams streams = {0};

	for (unsigned step = 0; step < 1000; step++)
		for (unsigned number = 0; number < STREAMS; number++)
			g_assert_cmpuint(note(&streams, number, step), ==, (step + 1) * READ_BYTES);
}

/* Reads here and there between those of a run. */
static void test_random_reads_between(void)
{
	struct streams streams = {0};

	for (unsigned step = 0; step < 1000; step++) {
		g_assert_cmpuint(note(&streams, 1, step), ==, (step + 1) * READ_BYTES);
		for (unsigned i = 1; i < STREAMS; i++)
			note(&streams, (unsigned)g_test_rand_int_range(2, 1000),
			     2 * (unsigned)g_test_rand_int_range(0, 1000));
	}
}

/* One more than are remembered: the oldest is forgotten, the others are not. */
static void test_oldest_is_forgotten(void)
{
	struct streams streams = {0};

	for (unsigned number = 0; number <= STREAMS; number++)
		note(&streams, number, 0);
	for (unsigned number = 1; number <= STREAMS; number++)
		g_assert_cmpuint(note(&streams, number, 1), ==, 2 * READ_BYTES);
	g_assert_cmpuint(note(&streams, 0, 1), ==, READ_BYTES);
}

/* At the very end of the numbers nothing is taken for what it is not. */
static void test_last_byte(void)
{
	struct streams streams = {0};

	g_assert_cmpuint(streams_note(&streams, UINT64_MAX - 4095, 4096), ==, 4096);
	g_assert_cmpuint(streams_note(&streams, UINT64_MAX - 4095, 4096), ==, 4096);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/streams/run-grows", test_run_grows);
	g_test_add_func("/streams/first-byte", test_first_byte);
	g_test_add_func("/streams/run-ends", test_run_ends);
	g_test_add_func("/streams/readers-side-by-side", test_readers_side_by_side);
	g_test_add_func("/streams/random-reads-between", test_random_reads_between);
	g_test_add_func("/streams/oldest-is-forgotten", test_oldest_is_forgotten);
	g_test_add_func("/streams/last-byte", test_last_byte);
	return g_test_run();
}
