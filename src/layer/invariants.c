/* What holds of a layer, as numbered in layer/layer.h. */
#include "layer/layer.h"
#include "layer/backlog_locked.h"
#include "layer/pool_cache.h"

#ifdef LEAFDISK_FAULTS

static const char *find_breach_of_share(const struct layer *layer)
{
	bool pinned = layer->share == SHARE_PINNED;

	if ((layer->cached != NULL) != (layer->share != SHARE_NONE))
		return "1: what the cache has of it is not as its share says";
	if (layer->share != SHARE_NONE && pinned == (layer->image != NULL))
		return "2: its share is PINNED and it has an image, or neither";
	if (layer->claim.generation && !layer->image)
		return "3: a claim without an image";
	return NULL;
}

static const char *find_breach_of_state(const struct backlog *backlog)
{
	bool tried = backlog->state == LAYER_DIRTY || backlog->state == LAYER_RETRYING;
	bool attached = !list_is_empty(&backlog->link);

	if (!layer_state_is_final(backlog->state) && attached != (backlog->state != LAYER_CLEAN))
		return "4: it is CLEAN and on the list, or neither";
	if (tried && (backlog->failures > 0) != (backlog->state == LAYER_RETRYING))
		return "6: it is RETRYING without a failure, or DIRTY with one";
	if (layer_state_is_final(backlog->state) && !backlog->reason)
		return "7: it has failed, and does not say why";
	if (backlog->work == BACKLOG_MOVING && !tried)
		return "8: a batch of what is not tried";
	return NULL;
}

static const char *find_breach_between(const struct layer *layer)
{
	bool dirty = layer->share == SHARE_DIRTY;

	switch (layer->backlog.state) {
	case LAYER_CLEAN:
	case LAYER_AWAY:
		return dirty ? "5: it is CLEAN or AWAY, its share is dirty" : NULL;
	case LAYER_DIRTY:
	case LAYER_RETRYING:
		return dirty ? NULL : "5: it is DIRTY, its share is not";
	default:
		return NULL;
	}
}

const char *layer_find_breach(struct layer *layer)
{
	const char *breach = find_breach_of_share(layer);

	if (breach || !layer->pool_cache)
		return breach;
	LOCK_GUARD(&layer->pool_cache->backlogs.lock);
	breach = find_breach_between(layer);
	if (!breach)
		breach = find_breach_of_state(&layer->backlog);
	return breach;
}

void layer_check(struct layer *layer)
{
	const char *breach = layer_find_breach(layer);

	if (breach)
		g_error("%s: invariant %s", layer->name, breach);
}

#endif
