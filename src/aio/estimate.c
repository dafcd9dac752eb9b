/* Whether a read is likely to be in the page cache, by how others have gone.
 *
 * Hits earn credit, misses take more of it; a miss without credit is followed
 * by a pause. So where four in five reads hit every read is tried, and a cold
 * file costs one try in PAUSE. */
#include "estimate.h"

#include <glib.h>
#include <stdatomic.h>

#define PAUSE 128
#define MOST_CREDIT 16
#define MISS_COST 4

bool estimate_says_try(struct cache_estimate *estimate)
{
	unsigned pause = atomic_load_explicit(&estimate->pause, memory_order_relaxed);

	if (pause > 0)
		atomic_store_explicit(&estimate->pause, pause - 1, memory_order_relaxed);
	return pause == 0;
}

void estimate_note(struct cache_estimate *estimate, bool hit)
{
	int credit = atomic_load_explicit(&estimate->credit, memory_order_relaxed);

	credit = hit ? MIN(credit + 1, MOST_CREDIT) : credit - MISS_COST;
	if (credit < 0)
		atomic_store_explicit(&estimate->pause, PAUSE, memory_order_relaxed);
	atomic_store_explicit(&estimate->credit, MAX(credit, 0), memory_order_relaxed);
}
