/* Retry of transient errors: spacing and deadline.
 *
 * tapdisk tried a failed request again at a fixed pace, dm-lc at full speed
 * and for ever. Here the spaces double, and the deadline counts from the
 * submission, so that a request never outlives io_timeout by more than the
 * time its last try takes. */
#include "aio/retry.h"

uint64_t retry_spacing_ns(unsigned tries)
{
	if (tries >= 10)
		return RETRY_LONGEST_NS;
	return RETRY_FIRST_NS << tries;
}

bool retry_schedule(unsigned tries, uint64_t start_ns, uint64_t timeout_ns, uint64_t now_ns, uint64_t *at_ns)
{
	uint64_t age_ns = now_ns > start_ns ? now_ns - start_ns : 0;
	uint64_t space_ns = retry_spacing_ns(tries);

	if (age_ns >= timeout_ns)
		return false;
	if (space_ns > timeout_ns - age_ns)
		space_ns = timeout_ns - age_ns;
	*at_ns = now_ns + space_ns;
	return true;
}
