/* Whether a layer's image is still ours to write.
 *
 * Two things say that it is. The image's lock: it is ours from before the claim
 * until after the release, and as long as it is nobody opens the image to write it,
 * whatever the record says. The owner record: it reaches where the lock does not, to
 * hosts whose file systems do not share locks, and nobody writes another's image
 * whose record is unclean, unless an administrator has given that up (leafctl unlock
 * --force), as he does for a host that is taken for dead.
 *
 * A record that is gone, or cannot be read, says nothing: the batch waits.
 *
 * A look at the record is no fence: between it and the end of the batch anything can
 * happen, and a batch that is on its way to a store that hangs gets there. It bounds
 * how much is written to an image after it was given away. So it holds for as long
 * as a batch takes at most while the store answers, GOOD_FOR_NS, and the record is
 * read again when
 *     that is over, counted from before it was read; by a clock that goes on while
 *         the host sleeps, so a host that was away looks first
 *     a batch, or a look, has failed, and once more when the outage is over: a lock
 *         that a server has lost shows by that
 *     somebody drains the layer: he wants to know how it is now
 *     the claim is new (backlog_attach)
 * and before each batch of an image that is not locked, where the record is all
 * there is. With a lock that others respect nothing depends on it: a batch that goes
 * to an image whose record was taken away a moment before goes to one that nobody
 * else can have opened yet. Without one, a second host that was let in by force may
 * find batches of the last GOOD_FOR_NS, and that one which was under way, in the
 * image it has opened; one under way it could always find. */
#include "owned.h"

#include <time.h>

#include "core/error.h"
#include "core/time.h"
#include "layer/claim.h"
#include "note.h"

#define GOOD_FOR_NS (2 * NS_PER_S)

static uint64_t now_with_sleep_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* *LOOKS: how often somebody has asked for a look up to now. */
static bool is_due(struct layer *layer, uint64_t now_ns, unsigned *looks)
{
	struct backlogs *backlogs = &layer->pool_cache->backlogs;
	uint64_t seen_ns;

	lock_take(&backlogs->lock);
	seen_ns = layer->backlog.owned_at_ns;
	*looks = layer->backlog.looks;
	lock_let_go(&backlogs->lock);
	return !layer->image->locked || seen_ns == 0 || now_ns - seen_ns >= GOOD_FOR_NS;
}

/* Who has asked for a look since this one began gets another. */
static void note_seen(struct layer *layer, uint64_t now_ns, unsigned looks)
{
	struct backlogs *backlogs = &layer->pool_cache->backlogs;

	LOCK_GUARD(&backlogs->lock);
	if (layer->backlog.looks == looks)
		layer->backlog.owned_at_ns = now_ns;
}

static void note_lost(struct layer *layer)
{
	g_autofree char *reason =
		g_strdup_printf("%s: failed: another has taken its image over; what the cache has of it is not "
				"written back (leafctl cache dump saves it)",
				layer->name);

	note_end(layer, LAYER_LOST, reason);
}

static void note_unknown(struct layer *layer, const GError *why)
{
	g_autofree char *reason =
		g_strdup_printf("%s: nobody can tell whether its image is still ours: %s", layer->name, why->message);

	note_failure(layer, error_to_errno(why), reason);
}

bool owned_check(struct layer *layer)
{
	uint64_t now_ns = now_with_sleep_ns();
	g_autoptr(GError) why = NULL;
	unsigned looks;

	if (!is_due(layer, now_ns, &looks))
		return true;
	switch (claim_check(layer, &why)) {
	case ANSWER_YES:
		note_seen(layer, now_ns, looks);
		return true;
	case ANSWER_NO:
		note_lost(layer);
		break;
	case ANSWER_UNKNOWN:
		note_unknown(layer, why);
		break;
	}
	return false;
}
