/* A layer's share in the cache. */
#include "layer/share.h"

#include <errno.h>

#include "core/config.h"
#include "core/error.h"
#include "core/log.h"
#include "layer/claim.h"
#include "layer/key.h"
#include "layer/pool_cache.h"
#include "owner/proof.h"

static void set_share(struct layer *layer, enum layer_share share, struct cache_layer *cached)
{
	layer->cached = cached;
	layer->share = cached ? share : SHARE_NONE;
}

void share_open(struct layer *layer, bool writable)
{
	struct cache_layer *cached = NULL;
	struct cache_layer_key key;

	if (layer_key_of(layer->link, layer->image, &key))
		cached = cache_layer_open(layer->pool_cache->cache, &key, writable);
	set_share(layer, writable ? SHARE_MIRRORED : SHARE_CLEAN, cached);
}

/* What is there of it is neither shown nor written back: nobody could tell old from new. */
static bool refuse_loss(const struct layer *layer, const char *loss, GError **error)
{
	g_autofree char *command = claim_unlock_command(layer);

	return error_set(error, EIO, "%s: %s; leafctl cache dump saves what there is, and %s gives up the rest",
			 layer->name, loss, command);
}

static bool refuse_dirty(const struct layer *layer, int result, GError **error)
{
	g_autofree char *loss = result == -EBADMSG ? share_loss_as_found(layer->link, layer->pool_cache) : NULL;

	if (loss)
		return refuse_loss(layer, loss, error);
	if (result == -ENOSPC)
		return error_set(error, ENOSPC,
				 "%s: the cache's log has no room to record its claim before changes of others are in "
				 "the pool",
				 layer->name);
	if (result == -EIO)
		return error_set(error, EIO,
				 "%s: the cache fails, and has changes of it that are not in the pool yet: it can be "
				 "opened for writing once the cache works again",
				 layer->name);
	return error_set_errno(error, -result,
			       "%s: the cache does not take its leaf (another open image may have its UUID)",
			       layer->name);
}

static const char NOTHING_LEFT[] = "the cache's log is damaged, and may have lost all changes of it";

/* Whether our cache, which has nothing of LAYER, may have lost what it had under the claim in
 * RECORD. */
static bool has_lost(const struct layer *layer, const struct owner_record *record)
{
	struct cache_status status;
	const char *doubt;

	cache_get_status(layer->pool_cache->cache, &status);
	return record && record->cache_generation <= status.lost_generation &&
	       owner_prove(record, layer->owner, record->generation, &doubt) == ANSWER_YES;
}

bool share_is_there(const struct layer *layer, GError **error)
{
	struct owner_record record = {0};
	struct cache_status status = {0};
	bool lost;

	if (layer->pool_cache && layer->owner)
		cache_get_status(layer->pool_cache->cache, &status);
	if (!status.lost_generation || share_left(layer) > 0 || !claim_read(layer, &record))
		return true;
	lost = has_lost(layer, &record);
	owner_record_clear(&record);
	return !lost || refuse_loss(layer, NOTHING_LEFT, error);
}

/* Only what is proven to be ours is written back, and only what is proven not to be goes. */
static bool may_be_taken(const struct layer *layer, const struct cache_layer_key *key, const struct owner_last *last,
			 GError **error)
{
	struct cache_layer_found found;
	g_autofree char *size = NULL, *command = NULL;
	const char *doubt;

	if (!cache_layer_find(layer->pool_cache->cache, key->identity, &found) || found.dirty_blocks == 0)
		return !has_lost(layer, last->record) || refuse_loss(layer, NOTHING_LEFT, error);
	switch (owner_prove(last->record, last->self, found.generation, &doubt)) {
	case ANSWER_YES:
	case ANSWER_NO:
		return true;
	case ANSWER_UNKNOWN:
		break;
	}
	size = config_format_size(found.dirty_blocks << BLOCK_SHIFT);
	command = claim_unlock_command(layer);
	return error_set(error, EBUSY,
			 "%s: the cache has %s of changes of it, and nobody can tell whether they are to be written "
			 "back: %s; %s sets them aside for leafctl cache dump",
			 layer->name, size, doubt, command);
}

bool share_open_dirty(struct layer *layer, const struct owner_last *last, uint64_t *generation, GError **error)
{
	struct cache_layer *cached = NULL;
	struct cache_layer_key key;
	int result = -EBUSY;

	if (layer_key_of(layer->link, layer->image, &key)) {
		if (!may_be_taken(layer, &key, last, error))
			return false;
		key.owned = last->owned;
		key.goes_on = last->goes_on;
		cached = cache_layer_open_dirty(layer->pool_cache->cache, &key, generation, &result);
	}
	set_share(layer, SHARE_DIRTY, cached);
	return cached || refuse_dirty(layer, result, error);
}

bool share_open_pinned(struct layer *layer, GError **error)
{
	set_share(layer, SHARE_PINNED, cache_layer_new_volatile(layer->pool_cache->cache, layer->name));
	return layer->cached ||
	       error_set(error, ENOSPC, "%s: the cache has no layer number left; make it anew", layer->name);
}

void share_close(struct layer *layer, bool good)
{
	struct cache_layer_key key = {0};

	if (good && layer->cached)
		good = !layer->image->unstamped && layer_key_of(layer->link, layer->image, &key);
	cache_layer_close(layer->cached, good ? key.stamp : 0);
	set_share(layer, SHARE_NONE, NULL);
}

bool share_settle(struct layer *layer)
{
	int result = layer->share == SHARE_DIRTY ? cache_layer_settle(layer->cached) : 0;

	if (result < 0)
		log_warning(
			"%s: the cache cannot record that the pool has all of it (%s): it stays owned by this cache",
			layer->name, g_strerror(-result));
	return result == 0;
}

void share_abandon(struct layer *layer, const char *reason)
{
	cache_layer_abandon(layer->cached, reason);
	share_close(layer, false);
}

void share_orphan(struct layer *layer)
{
	cache_layer_orphan(layer->cached);
	set_share(layer, SHARE_NONE, NULL);
}

bool share_is_dirty(struct layer *layer)
{
	struct cache_dirty dirty = {0};

	if (layer->cached)
		cache_layer_get_dirty(layer->cached, &dirty);
	return dirty.oldest_ns != 0 || share_left(layer) > 0;
}

/* Blocks and zero ranges. */
static uint64_t dirty_of(struct pool_cache *pool_cache, const uint8_t identity[CACHE_ID_BYTES])
{
	struct cache_layer_found found;

	(void)cache_layer_find(pool_cache->cache, identity, &found);
	return found.dirty_blocks;
}

static char *loss_of(struct pool_cache *pool_cache, const uint8_t identity[CACHE_ID_BYTES])
{
	struct cache_layer_found found;

	(void)cache_layer_find(pool_cache->cache, identity, &found);
	return found.incomplete ? g_strdup(found.loss) : NULL;
}

char *share_loss_as_found(const struct chain_link *link, struct pool_cache *pool_cache)
{
	uint8_t identity[CACHE_ID_BYTES];

	layer_identity_of(link, NULL, identity);
	return loss_of(pool_cache, identity);
}

uint64_t share_left(const struct layer *layer)
{
	uint8_t identity[CACHE_ID_BYTES];

	if (!layer->pool_cache || layer->cached)
		return 0;
	layer_identity_of(layer->link, layer->image, identity);
	return dirty_of(layer->pool_cache, identity);
}

uint64_t share_left_of_link(const struct chain_link *link, struct pool_cache *pool_cache)
{
	struct cache_layer_key key;

	if (!pool_cache)
		return 0;
	if (!layer_key_of(link, NULL, &key))
		layer_identity_of(link, NULL, key.identity);
	return dirty_of(pool_cache, key.identity);
}

uint64_t share_left_as_found(const struct chain_link *link, struct pool_cache *pool_cache)
{
	uint8_t identity[CACHE_ID_BYTES];

	layer_identity_of(link, NULL, identity);
	return dirty_of(pool_cache, identity);
}
