/* A histogram of how long something took. Added to from any thread, without a lock;
 * nothing is allocated.
 *
 * A bucket is a quarter of a power of two of microseconds, so what is read of it is
 * right within 25 %. */
#ifndef LEAFDISK_CORE_HISTOGRAM_H
#define LEAFDISK_CORE_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

/* Up to 134 s; the last takes what is longer. */
#define HISTOGRAM_BUCKETS 104

/* All zero: empty. */
struct histogram {
	_Atomic uint64_t counts[HISTOGRAM_BUCKETS];
	_Atomic uint64_t sum_ns;
	_Atomic uint64_t longest_ns;
};

/* As it was at one time. */
struct histogram_view {
	uint64_t counts[HISTOGRAM_BUCKETS];
	uint64_t count; /* of all buckets */
	uint64_t sum_ns;
	uint64_t longest_ns;
};

void histogram_add(struct histogram *histogram, uint64_t ns);
/* What is added meanwhile is in the view, or not. */
void histogram_look(const struct histogram *histogram, struct histogram_view *view);
void histogram_reset(struct histogram *histogram);

/* What is in BUCKET took less than that, in microseconds; UINT64_MAX: it is the last. */
uint64_t histogram_end_us(unsigned bucket);
/* PER_MILLE of 1000 took no longer than that; 0: there is nothing. */
uint64_t histogram_quantile_ns(const struct histogram_view *view, unsigned per_mille);

#endif
