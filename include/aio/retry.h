/* When what failed is tried again, and for how long.
 *
 * Pure functions: the caller brings the clock. */
#ifndef LEAFDISK_AIO_RETRY_H
#define LEAFDISK_AIO_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "core/time.h"

#define RETRY_FIRST_NS ((uint64_t)1000000)
#define RETRY_LONGEST_NS NS_PER_S

/* Space before try number TRIES + 1: 1 ms, doubling up to 1 s. */
uint64_t retry_spacing_ns(unsigned tries);

/* Sets *AT_NS to the time of the next try, the last one exactly at the
 * deadline START_NS + TIMEOUT_NS. False: the deadline has come, and the error
 * goes up. */
bool retry_schedule(unsigned tries, uint64_t start_ns, uint64_t timeout_ns, uint64_t now_ns, uint64_t *at_ns);

#endif
