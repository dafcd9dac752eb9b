/* Histograms of time: four buckets for each power of two of microseconds. */
#include "core/histogram.h"

#include <glib.h>

#include "core/time.h"

#define QUARTERS 4

static unsigned bucket_of(uint64_t us)
{
	unsigned power, bucket;

	if (us < QUARTERS)
		return (unsigned)us;
	power = 63 - (unsigned)__builtin_clzll(us);
	bucket = (power - 1) * QUARTERS + (unsigned)(us >> (power - 2)) % QUARTERS;
	return MIN(bucket, HISTOGRAM_BUCKETS - 1);
}

uint64_t histogram_end_us(unsigned bucket)
{
	unsigned next = bucket + 1;

	if (next >= HISTOGRAM_BUCKETS)
		return UINT64_MAX;
	return next < QUARTERS ? next : (uint64_t)(QUARTERS + next % QUARTERS) << (next / QUARTERS - 1);
}

static void add(_Atomic uint64_t *number, uint64_t n)
{
	atomic_fetch_add_explicit(number, n, memory_order_relaxed);
}

static uint64_t look(const _Atomic uint64_t *number)
{
	return atomic_load_explicit(number, memory_order_relaxed);
}

static void reset(_Atomic uint64_t *number)
{
	atomic_store_explicit(number, 0, memory_order_relaxed);
}

void histogram_add(struct histogram *histogram, uint64_t ns)
{
	uint64_t longest = look(&histogram->longest_ns);

	add(&histogram->counts[bucket_of(ns / NS_PER_US)], 1);
	add(&histogram->sum_ns, ns);
	while (ns > longest && !atomic_compare_exchange_weak(&histogram->longest_ns, &longest, ns))
		;
}

void histogram_look(const struct histogram *histogram, struct histogram_view *view)
{
	*view = (struct histogram_view){
		.sum_ns = look(&histogram->sum_ns),
		.longest_ns = look(&histogram->longest_ns),
	};
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		view->counts[i] = look(&histogram->counts[i]);
		view->count += view->counts[i];
	}
}

void histogram_reset(struct histogram *histogram)
{
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		reset(&histogram->counts[i]);
	reset(&histogram->sum_ns);
	reset(&histogram->longest_ns);
}

/* The end of the bucket that has it: nothing in it took longer than the longest. */
uint64_t histogram_quantile_ns(const struct histogram_view *view, unsigned per_mille)
{
	uint64_t wanted = (view->count * per_mille + 999) / 1000, seen = 0;
	unsigned bucket = 0;

	if (view->count == 0)
		return 0;
	while (bucket + 1 < HISTOGRAM_BUCKETS && (seen += view->counts[bucket]) < wanted)
		bucket++;
	if (bucket + 1 == HISTOGRAM_BUCKETS)
		return view->longest_ns;
	return MIN(histogram_end_us(bucket) * NS_PER_US, view->longest_ns);
}
