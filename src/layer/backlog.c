/* A layer's backlog.
 *
 * How its state changes, and who makes it so:
 *
 *     CLEAN             -> DIRTY      backlog_attach: its share is to take what is dirty
 *     CLEAN             -> AWAY       backlog_attach_away: it was opened while the cache fails
 *     DIRTY             -> RETRYING   a try failed (migrate/note.c)
 *     RETRYING          -> DIRTY      one succeeded (migrate/note.c)
 *     DIRTY, RETRYING   -> AWAY       the cache is suspended, and has nothing that is dirty (migrate/state.c)
 *     AWAY              -> DIRTY      backlog_attach: it works again
 *     AWAY              -> RETRYING   it could not be left after all
 *     DIRTY, RETRYING   -> LOST       the record is another's (migrate/owned.c)
 *     DIRTY, RETRYING   -> FAILED     the cache cannot be read (migrate/batch.c)
 *     the first four    -> CLEAN      backlog_detach: all of it is on the image, or it is closed
 *     LOST, FAILED      -> DIRTY      backlog_attach: it is opened anew; AWAY likewise
 *
 * What is LOST or FAILED stays so when it is closed, so that the end of a mount knows. */
#include "layer/backlog_locked.h"

#include <errno.h>
#include <limits.h>

#include "core/time.h"
#include "layer/layer.h"
#include "layer/pool_cache.h"

#define HOLD_ASK_NS (50 * NS_PER_MS)

#define STATE(state) (1u << LAYER_##state)

#ifdef LEAFDISK_FAULTS
static bool may_follow(enum layer_state state, enum layer_state next)
{
	static const unsigned next_of[] = {
		[LAYER_CLEAN] = STATE(DIRTY) | STATE(AWAY),
		[LAYER_DIRTY] = STATE(CLEAN) | STATE(RETRYING) | STATE(AWAY) | STATE(LOST) | STATE(FAILED),
		[LAYER_RETRYING] = STATE(CLEAN) | STATE(DIRTY) | STATE(AWAY) | STATE(LOST) | STATE(FAILED),
		[LAYER_AWAY] = STATE(CLEAN) | STATE(DIRTY) | STATE(RETRYING),
		[LAYER_LOST] = STATE(DIRTY) | STATE(AWAY),
		[LAYER_FAILED] = STATE(DIRTY) | STATE(AWAY),
	};

	return next == state || next_of[state] & 1u << next;
}
#endif

struct layer *backlog_layer(struct list *node)
{
	return container_of(node, struct layer, backlog.link);
}

static struct backlogs *backlogs_of(struct layer *layer)
{
	return &layer->pool_cache->backlogs;
}

/* The first line of what is called with the lock. */
#define assert_locked(backlog) lock_assert_mine(&backlogs_of(container_of(backlog, struct layer, backlog))->lock)

void backlog_set_state_locked(struct backlog *backlog, enum layer_state state)
{
	assert_locked(backlog);
#ifdef LEAFDISK_FAULTS
	g_assert(may_follow(backlog->state, state));
#endif
	backlog->state = state;
}

void backlogs_init(struct backlogs *backlogs)
{
	lock_init(&backlogs->lock, LOCK_RANK_BACKLOGS);
	condition_init(&backlogs->changed);
	list_init(&backlogs->layers);
}

void backlogs_clear(struct backlogs *backlogs)
{
	condition_destroy(&backlogs->changed);
	lock_destroy(&backlogs->lock);
}

void backlog_init(struct backlog *backlog)
{
	list_init(&backlog->link);
	list_init(&backlog->waiters);
}

bool backlog_is_attached_locked(const struct backlog *backlog)
{
	assert_locked(backlog);
	return !list_is_empty(&backlog->link);
}

void backlog_set_reason_locked(struct backlog *backlog, const char *reason)
{
	assert_locked(backlog);
	g_free(backlog->reason);
	backlog->reason = *reason ? g_strdup(reason) : NULL;
	clock_gettime(CLOCK_REALTIME, &backlog->since);
}

void backlog_answer_drains_locked(struct backlog *backlog, int result)
{
	struct list *node;

	assert_locked(backlog);
	while ((node = list_pop(&backlog->waiters))) {
		struct drain *drain = container_of(node, struct drain, link);

		drain->result = result;
		loop_post(drain->loop, &drain->task);
	}
}

/* ---- On the list ------------------------------------------------------------ */

static void attach(struct layer *layer, enum layer_state state, const char *reason)
{
	struct backlogs *backlogs = backlogs_of(layer);
	struct backlog *backlog = &layer->backlog;

	lock_take(&backlogs->lock);
	if (!backlog_is_attached_locked(backlog))
		list_append(&backlogs->layers, &backlog->link);
	backlog_set_state_locked(backlog, state);
	backlog->failures = 0;
	backlog->error = 0;
	backlog->batch_max = UINT_MAX;
	backlog->batch_needs = 0;
	backlog->retry_at_ns = 0;
	backlog->owned_at_ns = 0;
	backlog_set_reason_locked(backlog, reason);
	lock_let_go(&backlogs->lock);
	layer_check(layer);
	pool_cache_kick(layer->pool_cache);
}

void backlog_attach(struct layer *layer)
{
	attach(layer, LAYER_DIRTY, "");
}

void backlog_attach_away(struct layer *layer, const char *reason)
{
	attach(layer, LAYER_AWAY, reason);
}

enum layer_state backlog_detach(struct layer *layer)
{
	struct backlogs *backlogs;
	enum layer_state state;

	if (!layer->pool_cache)
		return LAYER_CLEAN;
	backlogs = backlogs_of(layer);
	LOCK_GUARD(&backlogs->lock);
	while (layer->backlog.work == BACKLOG_MOVING)
		lock_wait(&backlogs->lock, &backlogs->changed);
	state = layer->backlog.state;
	layer->backlog.wanted = false;
	if (backlog_is_attached_locked(&layer->backlog))
		list_remove(&layer->backlog.link);
	if (!layer_state_is_final(state))
		backlog_set_state_locked(&layer->backlog, LAYER_CLEAN);
	backlog_answer_drains_locked(&layer->backlog, layer->backlog.error);
	return state;
}

/* ---- Who waits, and who asks ------------------------------------------------- */

void backlog_drain(struct layer *layer, struct drain *drain)
{
	struct backlogs *backlogs = backlogs_of(layer);

	lock_take(&backlogs->lock);
	list_append(&layer->backlog.waiters, &drain->link);
	lock_let_go(&backlogs->lock);
	pool_cache_kick(layer->pool_cache);
}

void backlog_send_back(struct layer *layer)
{
	struct backlogs *backlogs;

	if (!layer->pool_cache)
		return;
	backlogs = backlogs_of(layer);
	lock_take(&backlogs->lock);
	backlog_answer_drains_locked(&layer->backlog, -EAGAIN);
	lock_let_go(&backlogs->lock);
	cache_wake(layer->pool_cache->cache);
}

/* One between them that is done does not let it pass those below. */
struct layer *backlog_waits_for_locked(const struct backlog *backlog)
{
	struct layer *after = backlog->after;

	assert_locked(backlog);
	while (after && !backlog_is_attached_locked(&after->backlog))
		after = after->backlog.after;
	return after;
}

/* Whoever urges wants to know how it is now, not how it was; also of what goes first. */
static void look_anew_locked(struct backlog *backlog)
{
	struct layer *after = container_of(backlog, struct layer, backlog);

	assert_locked(backlog);
	for (; after; after = backlog_waits_for_locked(&after->backlog)) {
		after->backlog.retry_at_ns = 0;
		after->backlog.failures = MIN(after->backlog.failures, 1);
		after->backlog.owned_at_ns = 0;
		after->backlog.looks++;
	}
}

void backlog_urge(struct layer *layer, int change)
{
	struct backlogs *backlogs = backlogs_of(layer);

	lock_take(&backlogs->lock);
	layer->backlog.urged += (unsigned)change;
	if (change > 0)
		look_anew_locked(&layer->backlog);
	lock_let_go(&backlogs->lock);
	pool_cache_kick(layer->pool_cache);
}

bool backlog_hold(struct layer *layer, bool (*go_on)(void *opaque), void *opaque)
{
	struct backlogs *backlogs;
	bool idle, wanted = true;

	if (!layer->pool_cache)
		return true;
	backlogs = backlogs_of(layer);
	lock_take(&backlogs->lock);
	layer->backlog.held++;
	while (!(idle = layer->backlog.work != BACKLOG_MOVING) && wanted) {
		(void)lock_wait_until(&backlogs->lock, &backlogs->changed, loop_now_ns() + HOLD_ASK_NS);
		lock_let_go(&backlogs->lock);
		wanted = go_on(opaque);
		lock_take(&backlogs->lock);
	}
	if (!idle)
		layer->backlog.held--;
	lock_let_go(&backlogs->lock);
	return idle;
}

void backlog_let_go(struct layer *layer)
{
	struct backlogs *backlogs;

	if (!layer->pool_cache)
		return;
	backlogs = backlogs_of(layer);
	lock_take(&backlogs->lock);
	layer->backlog.held--;
	lock_let_go(&backlogs->lock);
	pool_cache_kick(layer->pool_cache);
}

void backlog_lend_image(struct layer *layer, bool lent)
{
	struct backlogs *backlogs = backlogs_of(layer);

	LOCK_GUARD(&backlogs->lock);
	layer->backlog.lent = lent;
}

static int error_of(const struct backlog *backlog)
{
	if (layer_state_is_final(backlog->state))
		return -EIO;
	return backlog->failures >= BACKLOG_FAILURES_TOLD ? backlog->error : 0;
}

/* Its own, or that of one below it, which goes first. */
int backlog_get_error_locked(const struct backlog *backlog, const char **reason)
{
	const struct layer *after;
	int error;

	assert_locked(backlog);
	while (!(error = error_of(backlog)) && (after = backlog_waits_for_locked(backlog)))
		backlog = &after->backlog;
	*reason = backlog->reason ? backlog->reason : "";
	return error;
}

int backlog_get_error(struct layer *layer, char **reason)
{
	struct backlogs *backlogs = backlogs_of(layer);
	const char *why;
	int error;

	LOCK_GUARD(&backlogs->lock);
	error = backlog_get_error_locked(&layer->backlog, &why);
	if (error)
		*reason = g_strdup(why);
	return error;
}

struct layer *backlog_put_after(struct layer *layer, struct layer *after)
{
	struct backlogs *backlogs = backlogs_of(layer);
	struct layer *before;

	lock_take(&backlogs->lock);
	before = layer->backlog.after;
	layer->backlog.after = after ? layer_ref(after) : NULL;
	lock_let_go(&backlogs->lock);
	return before;
}

enum layer_state backlog_get_state(struct layer *layer)
{
	struct backlogs *backlogs = backlogs_of(layer);

	LOCK_GUARD(&backlogs->lock);
	return layer->backlog.state;
}

void backlog_get_dirty_locked(struct layer *layer, struct cache_dirty *dirty)
{
	enum layer_state state = layer->backlog.state;

	lock_assert_mine(&backlogs_of(layer)->lock);
	*dirty = (struct cache_dirty){0};
	if (backlog_is_attached_locked(&layer->backlog) && state != LAYER_AWAY && state != LAYER_LOST)
		cache_layer_get_dirty(layer->cached, dirty);
}

static struct cache_dirty dirty_of(struct layer *layer)
{
	struct cache_dirty dirty = {0};

	if (!layer->pool_cache)
		return dirty;
	LOCK_GUARD(&backlogs_of(layer)->lock);
	backlog_get_dirty_locked(layer, &dirty);
	return dirty;
}

bool backlog_is_needed(struct layer *layer)
{
	return dirty_of(layer).oldest_ns != 0;
}

bool backlog_is_owed(struct layer *layer)
{
	return dirty_of(layer).owed;
}

void backlog_get_status(struct layer *layer, struct backlog_status *status)
{
	const struct backlog *backlog = &layer->backlog;
	struct cache_dirty dirty;

	*status = (struct backlog_status){.state = LAYER_CLEAN};
	if (!layer->pool_cache)
		return;
	LOCK_GUARD(&backlogs_of(layer)->lock);
	backlog_get_dirty_locked(layer, &dirty);
	if (backlog_is_attached_locked(backlog))
		status->state = backlog->state;
	status->dirty_blocks = dirty.blocks + dirty.zeros;
	status->oldest_ns = dirty.oldest_ns;
	g_strlcpy(status->reason, backlog->reason ? backlog->reason : "", sizeof(status->reason));
	status->since = backlog->since;
}
