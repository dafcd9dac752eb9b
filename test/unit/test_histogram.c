/* Histograms: where a time is counted, what is read of it, and that nothing is lost. */
#include "core/histogram.h"

#include <glib.h>
#include <pthread.h>

#include "core/time.h"

#define THREADS 4
#define ADDED 100000u

static struct histogram_view view_of(const struct histogram *histogram)
{
	struct histogram_view view;

	histogram_look(histogram, &view);
	return view;
}

/* The buckets follow each other without a gap, and none is wider than a quarter of what it counts. */
static void test_buckets(void)
{
	uint64_t begin = 0;

	for (unsigned i = 0; i + 1 < HISTOGRAM_BUCKETS; i++) {
		uint64_t end = histogram_end_us(i);

		g_assert_cmpuint(end, >, begin);
		g_assert_cmpuint(end - begin, <=, MAX(begin / 4, 1));
		begin = end;
	}
	g_assert_cmpuint(histogram_end_us(HISTOGRAM_BUCKETS - 1), ==, UINT64_MAX);
	g_assert_cmpuint(begin, >, 100 * 1000 * 1000);
}

/* The first and the last time of each bucket are counted in it. */
static void test_edges(void)
{
	uint64_t begin = 0;

	for (unsigned i = 0; i + 1 < HISTOGRAM_BUCKETS; i++) {
		struct histogram histogram = {0};
		uint64_t end = histogram_end_us(i);

		histogram_add(&histogram, begin * NS_PER_US);
		histogram_add(&histogram, end * NS_PER_US - 1);
		g_assert_cmpuint(view_of(&histogram).counts[i], ==, 2);
		begin = end;
	}
}

static void test_longest(void)
{
	struct histogram histogram = {0};
	struct histogram_view view;

	histogram_add(&histogram, UINT64_MAX / 2);
	histogram_add(&histogram, 3600 * NS_PER_S);
	view = view_of(&histogram);
	g_assert_cmpuint(view.counts[HISTOGRAM_BUCKETS - 1], ==, 2);
	g_assert_cmpuint(view.longest_ns, ==, UINT64_MAX / 2);
	g_assert_cmpuint(histogram_quantile_ns(&view, 500), ==, UINT64_MAX / 2);
}

static void test_quantiles(void)
{
	static const unsigned asked[] = {1, 10, 500, 900, 990, 999, 1000};
	struct histogram histogram = {0};
	struct histogram_view view = view_of(&histogram);

	g_assert_cmpuint(histogram_quantile_ns(&view, 500), ==, 0);
	for (uint64_t us = 1; us <= 1000; us++)
		histogram_add(&histogram, us * NS_PER_US);
	view = view_of(&histogram);
	g_assert_cmpuint(view.count, ==, 1000);
	g_assert_cmpuint(view.sum_ns, ==, 500500 * NS_PER_US);
	for (unsigned i = 0; i < G_N_ELEMENTS(asked); i++) {
		uint64_t right = asked[i] * NS_PER_US;

		g_assert_cmpuint(histogram_quantile_ns(&view, asked[i]), >=, right);
		g_assert_cmpuint(histogram_quantile_ns(&view, asked[i]), <=, MIN(right * 5 / 4 + NS_PER_US, 1000000));
	}
}

static void test_reset(void)
{
	struct histogram histogram = {0};
	struct histogram_view view;

	histogram_add(&histogram, 7 * NS_PER_MS);
	histogram_reset(&histogram);
	view = view_of(&histogram);
	g_assert_cmpuint(view.count + view.sum_ns + view.longest_ns, ==, 0);
	histogram_add(&histogram, NS_PER_US);
	g_assert_cmpuint(view_of(&histogram).longest_ns, ==, NS_PER_US);
}

static void *add_often(void *opaque)
{
	for (uint64_t i = 0; i < ADDED; i++)
		histogram_add(opaque, i % 5000 * NS_PER_US);
	return NULL;
}

static void test_threads(void)
{
	struct histogram histogram = {0};
	struct histogram_view view;
	pthread_t threads[THREADS];

	for (unsigned i = 0; i < THREADS; i++)
		g_assert_cmpint(pthread_create(&threads[i], NULL, add_often, &histogram), ==, 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	view = view_of(&histogram);
	g_assert_cmpuint(view.count, ==, THREADS * ADDED);
	g_assert_cmpuint(view.longest_ns, ==, 4999 * NS_PER_US);
	g_assert_cmpuint(view.sum_ns, ==, (uint64_t)THREADS * ADDED * 4999 / 2 * NS_PER_US);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/histogram/buckets", test_buckets);
	g_test_add_func("/histogram/edges", test_edges);
	g_test_add_func("/histogram/longest", test_longest);
	g_test_add_func("/histogram/quantiles", test_quantiles);
	g_test_add_func("/histogram/reset", test_reset);
	g_test_add_func("/histogram/threads", test_threads);
	return g_test_run();
}
