/* How a layer's migration went.
 *
 * What fails is tried again, after a while that doubles up to RETRY_LONGEST_NS, a
 * little more or less so that many hosts do not come back at once. An outage is one
 * line in the log, and its end another. */
#include "note.h"

#include <errno.h>

#include "core/error.h"
#include "core/log.h"
#include "layer/backlog_locked.h"
#include "core/time.h"

#define RETRY_FIRST_NS (100 * NS_PER_MS)
#define RETRY_LONGEST_NS (10 * NS_PER_S)

static uint64_t pause_after(unsigned failures)
{
	uint64_t pause = MIN(RETRY_FIRST_NS << MIN(failures - 1, 16), RETRY_LONGEST_NS);

	return pause + (uint64_t)((double)pause * g_random_double_range(-0.25, 0.25));
}

/* Its share of the room. */
static void set_stuck_locked(struct layer *layer, bool stuck)
{
	lock_assert_mine(&layer->pool_cache->backlogs.lock);
	if (layer->share == SHARE_DIRTY && layer->cached)
		cache_layer_set_stuck(layer->cached, stuck);
}

void note_hangs_locked(struct layer *layer, bool hangs)
{
	lock_assert_mine(&layer->pool_cache->backlogs.lock);
	set_stuck_locked(layer, hangs || layer->backlog.failures > 0 || layer_state_is_final(layer->backlog.state));
}

void note_failure(struct layer *layer, int error, const char *reason)
{
	struct backlogs *backlogs = &layer->pool_cache->backlogs;
	struct backlog *backlog = &layer->backlog;
	bool first;

	lock_take(&backlogs->lock);
	first = backlog->failures++ == 0;
	backlog->retry_at_ns = loop_now_ns() + pause_after(backlog->failures);
	backlog->error = error;
	if (backlog->state == LAYER_DIRTY)
		backlog_set_state_locked(backlog, LAYER_RETRYING);
	backlog->owned_at_ns = 0;
	if (first)
		backlog_set_reason_locked(backlog, reason);
	if (backlog->failures >= BACKLOG_FAILURES_TOLD)
		backlog_answer_drains_locked(backlog, error);
	set_stuck_locked(layer, true);
	lock_let_go(&backlogs->lock);
	if (first)
		log_disk(EVENT_WARNING, layer->name, "%s; its changes stay in the cache, and it is tried again",
			 reason);
	else
		log_debug(LOG_DISK, "%s: another try to write its changes back failed: %s", layer->name, reason);
}

void note_errno(struct layer *layer, int error, const char *what)
{
	g_autofree char *reason = g_strdup_printf("%s: %s: %s", layer->link->path, what, g_strerror(-error));

	note_failure(layer, error, reason);
}

void note_error(struct layer *layer, const GError *error)
{
	note_failure(layer, error_to_errno(error), error->message);
}

void note_success(struct layer *layer)
{
	struct backlogs *backlogs = &layer->pool_cache->backlogs;
	unsigned failures;

	lock_take(&backlogs->lock);
	failures = layer->backlog.failures;
	layer->backlog.failures = 0;
	if (layer->backlog.state == LAYER_RETRYING)
		backlog_set_state_locked(&layer->backlog, LAYER_DIRTY);
	layer->backlog.error = 0;
	layer->backlog.retry_at_ns = 0;
	if (failures) {
		layer->backlog.owned_at_ns = 0;
		backlog_set_reason_locked(&layer->backlog, "");
	}
	set_stuck_locked(layer, false);
	lock_let_go(&backlogs->lock);
	layer->image->quiet = false;
	if (failures)
		log_disk(EVENT_WARNING, layer->name, "%s: takes its changes again, after %u tries", layer->link->path,
			 failures);
}

void note_pause(struct layer *layer, uint64_t after_ns)
{
	struct backlogs *backlogs = &layer->pool_cache->backlogs;

	LOCK_GUARD(&backlogs->lock);
	layer->backlog.retry_at_ns = MAX(layer->backlog.retry_at_ns, loop_now_ns() + after_ns);
}

/* From now on requests that begin are refused; the route follows once the gate can
 * be closed (WORK_END), which a request in work that a store does not answer holds
 * up, and nobody else. */
void note_end(struct layer *layer, enum layer_state state, const char *reason)
{
	struct backlogs *backlogs = &layer->pool_cache->backlogs;

	layer->disk->refusing = true;
	lock_take(&backlogs->lock);
	backlog_set_state_locked(&layer->backlog, state);
	backlog_set_reason_locked(&layer->backlog, reason);
	layer->backlog.retry_at_ns = 0;
	backlog_answer_drains_locked(&layer->backlog, -EIO);
	set_stuck_locked(layer, true);
	lock_let_go(&backlogs->lock);
	log_disk(EVENT_ERROR, layer->name, "%s", reason);
}
