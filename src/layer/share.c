/* A layer's share in the cache. */
#include "layer/share.h"

#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "core/config.h"
#include "core/error.h"
#include "core/log.h"
#include "core/shell.h"
#include "layer/claim.h"
#include "layer/key.h"
#include "image/format.h"
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
	g_autofree char *command = claim_unlock_command(layer, layer->link);

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

/* A claim of our cache that has not ended. */
static bool is_of_this_cache(const struct layer *layer, const struct owner_record *record)
{
	return !record->clean && strcmp(record->mode, "writeback") == 0 &&
	       memcmp(record->cache_id, layer->owner->cache_id, OWNER_ID_BYTES) == 0;
}

/* Whether our cache, which has nothing of LAYER, may have lost what it had under the claim in
 * RECORD. */
static bool has_lost(const struct layer *layer, const struct owner_record *record)
{
	struct cache_status status;

	cache_get_status(layer->pool_cache->cache, &status);
	return status.lost_generation && record && is_of_this_cache(layer, record) &&
	       record->cache_generation <= status.lost_generation;
}

/* Whether LAYER's image is the one that the cache calls NAME, or was when it was written
 * last, and no copy of that. Several images can have a name that was cut off. */
static enum answer is_the_one(const struct layer *layer, const char *name)
{
	g_autoptr(GError) why = NULL;
	struct image_info info;
	enum answer answer;

	if (strlen(name) >= CACHE_NAME_BYTES)
		return ANSWER_UNKNOWN;
	if (strcmp(layer->link->path, name) == 0)
		return ANSWER_YES;
	if (!image_read_info(name, layer->link->format, &info, &why))
		return error_to_errno(why) == -ENOENT ? ANSWER_YES : ANSWER_UNKNOWN;
	answer = memcmp(info.identity, layer->image->identity, IMAGE_UUID_BYTES) == 0 ? ANSWER_NO : ANSWER_YES;
	image_info_clear(&info);
	return answer;
}

static bool names(const struct owner_last *last, const struct owner_claim *log)
{
	return last->record && (buffer_is_zero(log->nonce, OWNER_ID_BYTES) ||
				memcmp(last->record->nonce, log->nonce, OWNER_ID_BYTES) == 0);
}

/* What is lost may be what the image has, or newer. */
static bool is_past(const struct cache_layer_found *found, const struct owner_last *last)
{
	struct owner_claim log = {.generation = found->generation};

	memcpy(log.nonce, found->nonce, OWNER_ID_BYTES);
	return !found->incomplete && owner_is_past(last->image, &log, found->reached);
}

static enum answer prove_claim(const struct cache_layer_found *found, const struct owner_last *last,
			       const struct owner_claim *log, const char **doubt)
{
	return is_past(found, last) ? ANSWER_NO : owner_prove(last, log, doubt);
}

/* What the record at its name does not say is of this image may be of one that it is a
 * copy of. */
static enum answer prove(const struct layer *layer, const struct cache_layer_found *found,
			 const struct owner_last *last, const char **doubt)
{
	struct owner_claim log = {.generation = found->generation};

	memcpy(log.nonce, found->nonce, OWNER_ID_BYTES);
	if (names(last, &log))
		return prove_claim(found, last, &log, doubt);
	switch (is_the_one(layer, found->name)) {
	case ANSWER_YES:
		return prove_claim(found, last, &log, doubt);
	case ANSWER_NO:
		*doubt = NULL;
		break;
	case ANSWER_UNKNOWN:
		*doubt = "which image they are of cannot be told";
		break;
	}
	return ANSWER_UNKNOWN;
}

/* DOUBT NULL: it is a copy. */
static bool refuse_doubt(const struct layer *layer, const struct cache_layer_found *found, const char *doubt,
			 GError **error)
{
	g_autofree char *size = config_format_size(found->dirty_blocks << BLOCK_SHIFT);
	g_autofree char *command = claim_unlock_command(layer, layer->link);

	if (!doubt)
		return error_set(
			error, EBUSY,
			"%s: is a copy of %s, of which the cache has %s of changes; it can be opened when they "
			"are in the pool (leafctl drain, or leafctl cache drain)",
			layer->name, found->name, size);
	return error_set(error, EBUSY,
			 "%s: the cache has %s of changes of %s, and nobody can tell whether they are to be written "
			 "back: %s; %s sets them aside for leafctl cache dump",
			 layer->name, size, found->name, doubt, command);
}

static bool is_unfinished(const struct layer *layer, const struct owner_record *record)
{
	return record && is_of_this_cache(layer, record) && !buffer_is_zero(record->nonce, OWNER_ID_BYTES);
}

/* RECORD has a claim of this cache that has not ended, and the image at its name has
 * another. */
static bool was_replaced(const struct layer *layer, const struct owner_record *record)
{
	struct owner_image image = claim_image(layer);

	return is_unfinished(layer, record) && owner_tells(record, &image) == ANSWER_YES &&
	       memcmp(record->nonce, image.nonce, OWNER_ID_BYTES) != 0;
}

static bool refuse_half_adopted(const struct layer *layer, const struct cache_layer_found *found, GError **error)
{
	g_autofree char *cache = shell_quote(layer->owner->cache_path), *name = shell_quote(found->name);

	return error_set(error, EBUSY,
			 "%s: has a part of the changes that were being brought to it: leafctl cache adopt %s %s",
			 layer->name, cache, name);
}

/* An image that has no place for its claim may have one for its identity. */
static bool has_identity(const struct layer *layer, const uint8_t identity[CACHE_ID_BYTES])
{
	uint8_t own[CACHE_ID_BYTES];

	layer_identity_of(layer->link, layer->image, own);
	return memcmp(own, identity, CACHE_ID_BYTES) == 0;
}

/* What is dirty, or was, of the claim in RECORD is of LAYER's image. */
static bool fits_record(const struct layer *layer, const struct owner_record *record, GError **error)
{
	struct cache_layer_found found;

	if (!layer->pool_cache || !is_unfinished(layer, record) ||
	    !cache_layer_find_claim(layer->pool_cache->cache, record->nonce, &found))
		return true;
	if (found.orphan)
		return refuse_half_adopted(layer, &found, error);
	return (!was_replaced(layer, record) && has_identity(layer, found.identity)) ||
	       refuse_doubt(layer, &found, "the image was replaced, or is an older copy of itself", error);
}

bool share_allows(struct layer *layer, const struct owner_last *last, GError **error)
{
	return fits_record(layer, last->record, error);
}

bool share_is_there(const struct layer *layer, GError **error)
{
	struct owner_record record = {0};
	enum answer there;
	bool good;

	if (!layer->pool_cache || !layer->owner || share_left(layer) > 0)
		return true;
	there = claim_read(layer, &record, error);
	good = there == ANSWER_NO;
	if (there == ANSWER_YES)
		good = has_lost(layer, &record) ? refuse_loss(layer, NOTHING_LEFT, error)
						: fits_record(layer, &record, error);
	owner_record_clear(&record);
	return good;
}

static void tell_past(const struct layer *layer, const struct cache_layer_found *found)
{
	g_autofree char *size = config_format_size(found->dirty_blocks << BLOCK_SHIFT);

	log_warning("%s: the cache has %s of changes of it that are older than what its image has under the same "
		    "claim: it is an older copy of itself, or has lost its end; they are set aside, and the disk is "
		    "as its image is, without what a newer copy of the cache may have: leafctl cache dump saves them, "
		    "leafctl cache purge forgets them",
		    layer->name, size);
}

static void disown(const struct layer *layer, const struct cache_layer_found *found, struct cache_layer_key *key,
		   const struct owner_last *last)
{
	const char *mode = last->record ? last->record->mode : "";
	bool past = is_past(found, last);

	key->disowned = true;
	if (past || strcmp(mode, "writeback") == 0)
		key->owned = 0;
	key->reason = strcmp(mode, "none") == 0 ? CACHE_ORPHAN_COMMAND : CACHE_ORPHAN_TAKEN;
	if (!past)
		return;
	key->reason = CACHE_ORPHAN_OLDER;
	tell_past(layer, found);
}

/* Only what is proven to be ours is written back, and only what is proven not to be goes. */
static bool take_claim(const struct layer *layer, struct cache_layer_key *key, const struct owner_last *last,
		       struct owner_claim *claim, GError **error)
{
	struct cache_layer_found found;
	const char *doubt;

	if (!was_replaced(layer, last->record))
		key->owned = last->owned;
	key->goes_on = last->goes_on;
	if (!cache_layer_find(layer->pool_cache->cache, key->identity, &found) || found.dirty_blocks == 0)
		return !has_lost(layer, last->record) || refuse_loss(layer, NOTHING_LEFT, error);
	switch (prove(layer, &found, last, &doubt)) {
	case ANSWER_YES:
		key->owned = found.generation;
		if (!buffer_is_zero(found.nonce, OWNER_ID_BYTES))
			memcpy(claim->nonce, found.nonce, OWNER_ID_BYTES);
		return true;
	case ANSWER_NO:
		disown(layer, &found, key, last);
		return true;
	case ANSWER_UNKNOWN:
		break;
	}
	return refuse_doubt(layer, &found, doubt, error);
}

bool share_disown(void *opaque, const struct owner_last *last, GError **error)
{
	struct layer *layer = opaque;
	struct owner_claim claim = {0};
	struct cache_layer_key key;

	if (!share_allows(layer, last, error))
		return false;
	if (!layer_key_of(layer->link, layer->image, &key))
		return true;
	if (!take_claim(layer, &key, last, &claim, error))
		return false;
	if (key.disowned)
		cache_layer_disown(layer->pool_cache->cache, &key);
	return true;
}

/* An image that was written in another mode meanwhile keeps its nonce: it is beyond what any
 * copy of the log from before has, and not beyond what the log itself has from now on. */
static void note_pass(struct layer *layer)
{
	struct image_op op = {.progress = layer->image->progress + 1};
	struct cache_status status;

	cache_get_status(layer->pool_cache->cache, &status);
	if (layer->image->progress > 0 && status.sequence > layer->image->progress &&
	    image_run_blocking(layer->image, &op, image_apply) == -EOPNOTSUPP)
		(void)image_run_blocking(layer->image, &op, image_note_progress);
}

bool share_open_dirty(struct layer *layer, const struct owner_last *last, struct owner_claim *claim, GError **error)
{
	struct cache_layer *cached = NULL;
	struct cache_layer_key key;
	int result = -EBUSY;

	if (!share_allows(layer, last, error))
		return false;
	if (layer_key_of(layer->link, layer->image, &key)) {
		if (!take_claim(layer, &key, last, claim, error))
			return false;
		cached = cache_layer_open_dirty(layer->pool_cache->cache, &key, &claim->generation, claim->nonce,
						&result);
	}
	set_share(layer, SHARE_DIRTY, cached);
	if (cached && layer->image->begun)
		note_pass(layer);
	return cached || refuse_dirty(layer, result, error);
}

bool share_open_new(struct layer *layer, GError **error)
{
	struct cache_layer *cached = NULL;
	struct cache_layer_key key;
	int result = -EBUSY;

	if (layer_key_of(layer->link, layer->image, &key))
		cached = cache_layer_open_dirty(layer->pool_cache->cache, &key, &layer->claim.generation,
						layer->claim.nonce, &result);
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

void share_discard(struct layer *layer)
{
	if (layer->cached)
		cache_layer_discard(layer->cached);
	set_share(layer, SHARE_NONE, NULL);
}

void share_orphan(struct layer *layer)
{
	cache_layer_orphan(layer->cached, CACHE_ORPHAN_TAKEN);
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

/* LINK's image is a copy of the one that has the layer open. */
static bool is_of_another(const struct chain_link *link, const struct cache_layer_found *found)
{
	return found->open && strncmp(link->path, found->name, CACHE_NAME_BYTES) != 0;
}

uint64_t share_left_as_found(const struct chain_link *link, struct pool_cache *pool_cache)
{
	uint8_t identity[CACHE_ID_BYTES];
	struct cache_layer_found found;

	layer_identity_of(link, NULL, identity);
	(void)cache_layer_find(pool_cache->cache, identity, &found);
	return is_of_another(link, &found) ? 0 : found.dirty_blocks;
}
