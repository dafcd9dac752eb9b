/* A layer's life in the cache: opened, degraded, healed, closed.
 *
 * The log's word on a layer is its last LAYER entry: with a stamp, its clean
 * blocks are good for an image of that stamp. Opened for writing the stamp is
 * void. That need not be durable before the image changes, because the image's
 * own stamp changes first, durably, and the recorded one is not its any more.
 *
 * A layer with dirty blocks is good under an ownership: its generation is in
 * the log before the pool says it, so that a crash in between leaves a log
 * that is one ahead. Whatever else the pool says, another has had the image.
 * That is all that the log must say for them to be written back, so it says it
 * when they become another's, and not again each time that the image is opened:
 * an ownership that goes on keeps its generation. Without dirty blocks nothing
 * depends on it before the first of them, in whose record it is.
 *
 * A change that cannot be recorded degrades the layer: it has a new id from
 * then on, with nothing cached, and what the log has under the old id is void.
 * Once the log takes a DROP of the old id the layer is active again. */
#include "layer.h"

#include <errno.h>
#include <string.h>

#include "cache/log/entry.h"
#include "cache/log/log.h"
#include "cache/log/space.h"
#include "cache/log/wake.h"
#include "dirty.h"
#include "core/log.h"

/* Of all that may be dirty, for which whoever migrates is woken to look. */
#define DIRTY_STEPS 16

static void kick_at_steps_locked(struct cache *cache)
{
	cache_assert_locked(cache);
	if (cache->dirty_blocks % MAX(space_dirty_max_locked(cache) / DIRTY_STEPS, 1) == 0)
		wake_migration_locked(cache);
}

uint64_t *cache_layer_pinned_count(struct cache_layer *layer)
{
	return layer->epochs ? &layer->cache->dirty_blocks : &layer->cache->pinned_blocks;
}

void cache_layer_account_locked(struct cache_layer *layer, unsigned flags, int change)
{
	struct cache *cache = layer->cache;

	cache_assert_locked(layer->cache);
	layer->live_blocks += (uint64_t)change;
	cache->live_blocks += (uint64_t)change;
	if (!(flags & INDEX_PINNED))
		return;
	layer->pinned_blocks += (uint64_t)change;
	*cache_layer_pinned_count(layer) += (uint64_t)change;
	if (layer->epochs && change > 0)
		kick_at_steps_locked(cache);
}

/* The cache has none of its blocks; the index finds that out by the id. */
static void disown_blocks_locked(struct cache_layer *layer)
{
	struct cache *cache = layer->cache;

	cache_assert_locked(layer->cache);
	cache->live_blocks -= layer->live_blocks;
	*cache_layer_pinned_count(layer) -= layer->pinned_blocks;
	cache_dirty_release_locked(layer);
	layer->live_blocks = 0;
	layer->pinned_blocks = 0;
}

static void remove_locked(struct cache_layer *layer)
{
	struct cache *cache = layer->cache;

	cache_assert_locked(layer->cache);
	disown_blocks_locked(layer);
	if (layer->status.state == CACHE_LAYER_DEGRADED)
		cache->degraded_layers--;
	layers_remove(cache->layers, layer);
}

/* ---- Degraded ------------------------------------------------------------ */

static void change_state_locked(struct cache_layer *layer, enum cache_layer_state state, const char *reason)
{
	cache_assert_locked(layer->cache);
	layer->status.state = state;
	g_strlcpy(layer->status.reason, reason, sizeof(layer->status.reason));
	clock_gettime(CLOCK_REALTIME, &layer->status.since);
	if (state == CACHE_LAYER_DEGRADED)
		layer->cache->degraded_layers++;
	else
		layer->cache->degraded_layers--;
}

static void ignore_removed(void *opaque, uint32_t slot, const struct index_entry *entry)
{
	(void)opaque;
	(void)slot;
	(void)entry;
}

void cache_layer_degrade_locked(struct cache_layer *layer, const char *reason)
{
	struct cache *cache = layer->cache;
	uint32_t old = layer->id;

	cache_assert_locked(layer->cache);
	if (layer->status.state == CACHE_LAYER_DEGRADED)
		return;
	layer->drop_id = layer->declared ? old : 0;
	disown_blocks_locked(layer);
	/* Without a new id it stays degraded; the old one must find nothing. */
	if (!layers_renew(cache->layers, layer))
		index_remove_range(cache->index, old, 0, CACHE_BLOCK_END, ignore_removed, NULL);
	change_state_locked(layer, CACHE_LAYER_DEGRADED, reason);
	wake_writer_locked(cache);
}

static void heal(void *opaque, struct cache_layer *layer)
{
	struct cache *cache = opaque;

	if (layer->status.state != CACHE_LAYER_DEGRADED || layer->id == layer->drop_id)
		return;
	if (layer->drop_id && !log_drop_locked(cache, layer->drop_id))
		return;
	layer->drop_id = 0;
	change_state_locked(layer, CACHE_LAYER_ACTIVE, "");
}

/* Of layers that are closed by now. */
static void drop_late_locked(struct cache *cache)
{
	cache_assert_locked(cache);
	while (cache->drops->len > 0 &&
	       log_drop_locked(cache, g_array_index(cache->drops, uint32_t, cache->drops->len - 1)))
		g_array_set_size(cache->drops, cache->drops->len - 1);
}

void cache_layers_heal_locked(struct cache *cache)
{
	cache_assert_locked(cache);
	if (cache->state == CACHE_ACTIVE)
		drop_late_locked(cache);
	if (cache->state == CACHE_ACTIVE && cache->degraded_layers > 0)
		layers_foreach(cache->layers, heal, cache);
}

void cache_layer_get_status(struct cache_layer *layer, struct cache_layer_status *status)
{
	LOCK_GUARD(&layer->cache->lock);
	*status = layer->status;
}

/* ---- Open ---------------------------------------------------------------- */

/* What opening and closing record keeps a layer's blocks: worth to wait for
 * while the log has no room. Not for migration: that may be of layers which
 * the caller is yet to open. */
static void wait_for_room_relock(struct cache *cache, enum log_purpose purpose)
{
	cache_assert_locked(cache);
	while (cache->started && cache->state == CACHE_ACTIVE && !space_has_room_locked(cache, purpose) &&
	       !space_is_blocked_locked(cache) && !space_is_hopeless_locked(cache)) {
		wake_reclaim_locked(cache);
		lock_wait(&cache->lock, &cache->changed);
	}
}

static bool is_owned(const struct cache_layer *layer, const struct cache_layer_key *key)
{
	return key->owned != 0 && (layer->generation == key->owned || layer->generation == key->owned + 1);
}

static bool is_good(const struct cache_layer *layer, const struct cache_layer_key *key)
{
	return (layer->stamp != 0 && layer->stamp == key->stamp) || is_owned(layer, key);
}

/* Nobody's blocks are moved like any pinned ones, and zeros with the declaration:
 * they are in the tail's segment or later. */
static void orphan_locked(struct cache_layer *layer, enum cache_orphan_reason reason)
{
	struct cache *cache = layer->cache;

	cache_assert_locked(layer->cache);
	cache->dirty_blocks -= layer->pinned_blocks;
	cache->pinned_blocks += layer->pinned_blocks;
	cache_dirty_release_locked(layer);
	layers_make_orphan(cache->layers, layer, reason);
	if (!log_declare_orphan_locked(cache, LOG_ENTRY, layer))
		layer->declared_segment = cache->reclaim.segment;
}

/* What was lost of it was dirty. */
static bool is_dirty(const struct cache_layer *layer)
{
	return layer->incomplete || (layer->epochs && !epochs_is_empty(layer->epochs));
}

/* And zero ranges. */
static uint64_t dirty_blocks_of(const struct cache_layer *layer)
{
	uint64_t blocks = layer->epochs ? layer->pinned_blocks + layer->epochs->zeros : 0;

	return MAX(blocks, layer->incomplete ? 1 : 0);
}

/* What is kept of an earlier mount or opening; what is not good goes. Dirty
 * blocks that this cache itself gave up are older than the pool's word. */
static struct cache_layer *find_good_locked(struct cache *cache, const struct cache_layer_key *key)
{
	struct cache_layer *layer = layers_by_identity(cache->layers, key->identity);

	cache_assert_locked(cache);
	if (!layer || (is_good(layer, key) && !(key->disowned && is_dirty(layer))))
		return layer;
	if (is_dirty(layer) && (layer->generation == 0 || layer->generation > key->owned)) {
		orphan_locked(layer, key->reason);
		return NULL;
	}
	if (layer->declared)
		(void)log_drop_locked(cache, layer->id);
	remove_locked(layer);
	return NULL;
}

static struct cache_layer *find_or_add_locked(struct cache *cache, const struct cache_layer_key *key)
{
	struct cache_layer *layer = find_good_locked(cache, key);

	cache_assert_locked(cache);
	return layer ? layer : layers_add(cache->layers, key->identity, key->name);
}

static bool is_shareable(const struct cache_layer *layer, const struct cache_layer_key *key, bool writable)
{
	return !writable && !layer->writable && layer->stamp == key->stamp;
}

static void begin_writing_locked(struct cache_layer *layer)
{
	cache_assert_locked(layer->cache);
	layer->writable = true;
	layer->stamp = 0;
	if (layer->declared && !log_declare_locked(layer->cache, LOG_ENTRY, layer))
		cache_layer_degrade_locked(layer, "the cache's log has no room to record that the image is written");
}

static struct cache_layer *open_locked(struct cache *cache, const struct cache_layer_key *key, bool writable)
{
	struct cache_layer *layer = layers_by_identity(cache->layers, key->identity);

	cache_assert_locked(cache);
	if (layer && layer->opens > 0) {
		if (!is_shareable(layer, key, writable))
			return NULL;
		layer->opens++;
		return layer;
	}
	/* KEY does not tell whose they are. */
	if (layer && is_dirty(layer))
		return NULL;
	layer = find_or_add_locked(cache, key);
	if (!layer)
		return NULL;
	layer->opens = 1;
	layer->stamp = key->stamp;
	layer->generation = 0;
	memset(layer->nonce, 0, sizeof(layer->nonce));
	layer->size_bytes = key->size_bytes;
	g_clear_pointer(&layer->epochs, epochs_free);
	if (writable)
		begin_writing_locked(layer);
	return layer;
}

struct cache_layer *cache_layer_open(struct cache *cache, const struct cache_layer_key *key, bool writable)
{
	struct cache_layer *layer;

	lock_take(&cache->lock);
	wait_for_room_relock(cache, LOG_ENTRY);
	layer = open_locked(cache, key, writable);
	lock_let_go(&cache->lock);
	if (layer)
		log_debug(LOG_CACHE, "%s: opened for %s", layer->name, writable ? "writing" : "reading");
	return layer;
}

/* ---- Open for dirty blocks ----------------------------------------------- */

/* What the log says of LAYER's dirty blocks holds for KEY too. */
static bool goes_on(const struct cache_layer *layer, const struct cache_layer_key *key)
{
	return key->goes_on && is_dirty(layer) && layer->declared && !layer->outdated && is_owned(layer, key);
}

static void set_claim_locked(struct cache_layer *layer, uint64_t generation, const uint8_t *nonce)
{
	static const uint8_t none[CACHE_ID_BYTES];

	cache_assert_locked(layer->cache);
	layer->generation = generation;
	layer->stamp = 0;
	memcpy(layer->nonce, nonce ? nonce : none, CACHE_ID_BYTES);
}

/* The dirty blocks change owners. Where the log never comes to say so it is as it was. */
static int record_owner_relock(struct cache_layer *layer, uint64_t generation, const uint8_t *nonce)
{
	struct cache *cache = layer->cache;
	uint64_t before = layer->generation;
	uint8_t nonce_before[CACHE_ID_BYTES];
	int result;

	cache_assert_locked(layer->cache);
	wait_for_room_relock(cache, LOG_CLAIM);
	memcpy(nonce_before, layer->nonce, CACHE_ID_BYTES);
	set_claim_locked(layer, generation, nonce);
	if (!log_declare_locked(cache, LOG_CLAIM, layer)) {
		set_claim_locked(layer, before, nonce_before);
		return cache->state == CACHE_ACTIVE ? -ENOSPC : -EIO;
	}
	result = log_wait_durable_relock(cache, log_flush_locked(cache));
	layer->outdated = result < 0;
	return result < 0 ? -EIO : 0;
}

/* Its clean blocks are good under GENERATION, if there is room to say so. */
static void begin_claim_locked(struct cache_layer *layer, uint64_t generation, const uint8_t *nonce)
{
	cache_assert_locked(layer->cache);
	set_claim_locked(layer, generation, nonce);
	if (layer->declared)
		layer->outdated = !log_declare_locked(layer->cache, LOG_ENTRY, layer);
}

static int own_relock(struct cache_layer *layer, const struct cache_layer_key *key, uint64_t *generation,
		      const uint8_t *nonce)
{
	cache_assert_locked(layer->cache);
	if (goes_on(layer, key)) {
		*generation = layer->generation;
		layer->outdated = layer->size_bytes != key->size_bytes;
		layer->size_bytes = key->size_bytes;
		return 0;
	}
	if (layer->cache->state != CACHE_ACTIVE)
		return -EIO;
	layer->size_bytes = key->size_bytes;
	if (is_dirty(layer))
		return record_owner_relock(layer, *generation, nonce);
	begin_claim_locked(layer, *generation, nonce);
	return 0;
}

/* A layer whose owner cannot be recorded is kept only for its dirty blocks. */
static struct cache_layer *open_dirty_relock(struct cache *cache, const struct cache_layer_key *key,
					     uint64_t *generation, const uint8_t *nonce, int *result)
{
	struct cache_layer *layer = layers_by_identity(cache->layers, key->identity);

	cache_assert_locked(cache);
	*result = -EBUSY;
	if (layer && layer->opens > 0)
		return NULL;
	layer = find_or_add_locked(cache, key);
	*result = layer ? -EBADMSG : -EOVERFLOW;
	if (!layer || layer->incomplete)
		return NULL;
	/* While the lock is let go nobody else opens or removes it. */
	layer->opens = 1;
	*result = own_relock(layer, key, generation, nonce);
	if (*result < 0) {
		layer->opens = 0;
		return NULL;
	}
	if (!layer->epochs)
		layer->epochs = epochs_new();
	layer->writable = true;
	layer->stuck = false;
	layer->reached = MAX(layer->reached, cache->log.next_sequence); /* of what comes */
	return layer;
}

struct cache_layer *cache_layer_open_dirty(struct cache *cache, const struct cache_layer_key *key, uint64_t *generation,
					   const uint8_t *nonce, int *result)
{
	struct cache_layer *layer;

	lock_take(&cache->lock);
	layer = open_dirty_relock(cache, key, generation, nonce, result);
	lock_let_go(&cache->lock);
	if (layer)
		log_debug(LOG_CACHE, "%s: opened for writing back", layer->name);
	return layer;
}

void cache_layer_disown(struct cache *cache, const struct cache_layer_key *key)
{
	LOCK_GUARD(&cache->lock);
	(void)find_good_locked(cache, key);
}

/* ---- What is known of others --------------------------------------------- */

static void describe(const struct cache_layer *layer, struct cache_layer_found *found)
{
	*found = (struct cache_layer_found){
		.generation = layer->generation,
		.dirty_blocks = dirty_blocks_of(layer),
		.reached = layer->reached,
		.orphan = layer->orphan,
		.open = layer->opens > 0,
		.orphan_text = layer_orphan_text(layer),
		.incomplete = layer->incomplete,
	};
	memcpy(found->identity, layer->identity, CACHE_ID_BYTES);
	memcpy(found->nonce, layer->nonce, CACHE_ID_BYTES);
	g_strlcpy(found->name, layer->name, sizeof(found->name));
	if (layer->incomplete) {
		g_autofree char *loss = layer_loss_text(layer);

		g_strlcpy(found->loss, loss, sizeof(found->loss));
	}
}

bool cache_layer_find(struct cache *cache, const uint8_t identity[CACHE_ID_BYTES], struct cache_layer_found *found)
{
	const struct cache_layer *layer;

	LOCK_GUARD(&cache->lock);
	layer = layers_by_identity(cache->layers, identity);
	*found = (struct cache_layer_found){0};
	if (layer)
		describe(layer, found);
	return layer;
}

bool cache_layer_find_orphan(struct cache *cache, const uint8_t identity[CACHE_ID_BYTES],
			     struct cache_layer_found *found)
{
	const struct cache_layer *orphan;

	LOCK_GUARD(&cache->lock);
	orphan = layers_newest_orphan(cache->layers, identity);
	if (!orphan)
		return false;
	describe(orphan, found);
	found->dirty_blocks = orphan->pinned_blocks;
	return true;
}

struct claim_search {
	const uint8_t *nonce;
	struct cache_layer_found *found;
	bool done;
};

static void look_for_claim(void *opaque, struct cache_layer *layer)
{
	struct claim_search *search = opaque;

	if ((!layer->orphan && !is_dirty(layer)) || memcmp(layer->nonce, search->nonce, CACHE_ID_BYTES) != 0)
		return;
	describe(layer, search->found);
	search->done = true;
}

bool cache_layer_find_claim(struct cache *cache, const uint8_t nonce[CACHE_ID_BYTES], struct cache_layer_found *found)
{
	struct claim_search search = {.nonce = nonce, .found = found};

	LOCK_GUARD(&cache->lock);
	layers_foreach(cache->layers, look_for_claim, &search);
	return search.done;
}

struct dirty_layers {
	bool orphan;
	GArray *layers; /* struct cache_layer_dirty, each with a name of its own */
};

static void add_dirty(void *opaque, struct cache_layer *layer)
{
	struct dirty_layers *layers = opaque;
	struct cache_layer_dirty dirty = {
		.dirty_blocks = layer->orphan ? layer->pinned_blocks : dirty_blocks_of(layer),
		.orphan_text = layer_orphan_text(layer),
	};

	if (layer->orphan != layers->orphan || layer->opens > 0 || (!layer->orphan && !is_dirty(layer)))
		return;
	dirty.name = g_strdup(layer->name);
	memcpy(dirty.identity, layer->identity, CACHE_ID_BYTES);
	g_array_append_val(layers->layers, dirty);
}

void cache_layer_foreach_dirty(struct cache *cache, bool orphan,
			       void (*each)(void *opaque, const struct cache_layer_dirty *dirty), void *opaque)
{
	struct dirty_layers layers = {orphan, g_array_new(FALSE, FALSE, sizeof(struct cache_layer_dirty))};

	lock_take(&cache->lock);
	layers_foreach(cache->layers, add_dirty, &layers);
	lock_let_go(&cache->lock);
	for (guint i = 0; i < layers.layers->len; i++) {
		const struct cache_layer_dirty *dirty = &g_array_index(layers.layers, struct cache_layer_dirty, i);

		each(opaque, dirty);
		g_free((char *)dirty->name);
	}
	g_array_free(layers.layers, TRUE);
}

struct cache_layer *cache_layer_new_volatile(struct cache *cache, const char *name)
{
	struct cache_layer *layer;

	LOCK_GUARD(&cache->lock);
	layer = layers_add(cache->layers, NULL, name);
	if (layer) {
		layer->opens = 1;
		layer->writable = true;
	}
	return layer;
}

void cache_layer_get_pinned(struct cache_layer *layer, uint64_t *blocks, uint64_t *zeros)
{
	LOCK_GUARD(&layer->cache->lock);
	*blocks = layer->pinned_blocks;
	*zeros = layer->zeros ? intervals_length(layer->zeros) : 0;
}

/* ---- Close --------------------------------------------------------------- */

/* False: the layer is not to be kept. */
static bool record_stamp_locked(struct cache_layer *layer, uint64_t stamp)
{
	cache_assert_locked(layer->cache);
	layer->stamp = stamp;
	return stamp != 0 && log_declare_locked(layer->cache, LOG_ENTRY, layer);
}

/* Nothing of it is dirty, and nobody claims it. */
static void end_dirty_locked(struct cache_layer *layer)
{
	cache_assert_locked(layer->cache);
	if (layer->epochs && layer->epochs->owes_migrated)
		cache_dirty_pay_locked(layer->cache, LOG_BATCH);
	g_clear_pointer(&layer->epochs, epochs_free);
	layer->generation = 0;
}

static bool is_kept_locked(struct cache_layer *layer, uint64_t stamp)
{
	bool was_writable = layer->writable;

	cache_assert_locked(layer->cache);
	layer->writable = false;
	if (layer->is_volatile || layer->status.state == CACHE_LAYER_DEGRADED || !layer->declared)
		return false;
	if (layer->orphan || is_dirty(layer))
		return true;
	end_dirty_locked(layer);
	return !was_writable || record_stamp_locked(layer, stamp);
}

static void close_locked(struct cache_layer *layer, uint64_t stamp)
{
	struct cache *cache = layer->cache;
	uint32_t drop_id;

	cache_assert_locked(layer->cache);
	layer->closed_ns = loop_now_ns();
	if (--layer->opens > 0)
		return;
	if (is_kept_locked(layer, stamp)) {
		wake_reclaim_locked(cache);
		return;
	}
	drop_id = layer->status.state == CACHE_LAYER_DEGRADED ? layer->drop_id : layer->declared ? layer->id : 0;
	if (drop_id && !layer->is_volatile && !log_drop_locked(cache, drop_id))
		g_array_append_val(cache->drops, drop_id);
	remove_locked(layer);
	condition_signal(&cache->reclaim.wanted);
}

void cache_layer_close(struct cache_layer *layer, uint64_t stamp)
{
	struct cache *cache;

	if (!layer)
		return;
	cache = layer->cache;
	log_debug(LOG_CACHE, "%s: closing", layer->name);
	LOCK_GUARD(&cache->lock);
	if (stamp != 0)
		wait_for_room_relock(cache, LOG_ENTRY);
	close_locked(layer, stamp);
}

void cache_layer_seal(struct cache_layer *layer, uint64_t stamp)
{
	LOCK_GUARD(&layer->cache->lock);
	if (is_dirty(layer))
		return;
	end_dirty_locked(layer);
	layer->writable = false;
	layer->stamp = stamp;
	if (layer->declared)
		layer->outdated = !log_declare_locked(layer->cache, LOG_ENTRY, layer);
}

void cache_layer_rename(struct cache_layer *layer, const char *name)
{
	LOCK_GUARD(&layer->cache->lock);
	g_free(layer->former_name);
	layer->former_name = layer->name;
	layer->name = g_strdup(name);
	if (layer->declared && layer->cache->state == CACHE_ACTIVE)
		layer->outdated = !log_declare_locked(layer->cache, LOG_ENTRY, layer);
}

int cache_layer_settle(struct cache_layer *layer)
{
	struct cache *cache = layer->cache;

	LOCK_GUARD(&cache->lock);
	cache_dirty_pay_locked(cache, LOG_BATCH);
	if (cache->state != CACHE_ACTIVE)
		return cache->failure < 0 ? cache->failure : -EIO;
	if (layer->epochs && layer->epochs->owes_migrated)
		return -ENOSPC;
	return log_wait_durable_relock(cache, log_flush_locked(cache));
}

int cache_settle(struct cache *cache)
{
	LOCK_GUARD(&cache->lock);
	cache_dirty_pay_locked(cache, LOG_BATCH);
	if (cache->state != CACHE_ACTIVE)
		return cache->failure < 0 ? cache->failure : -EIO;
	drop_late_locked(cache);
	if (cache->drops->len > 0)
		return -ENOSPC;
	return log_wait_durable_relock(cache, log_flush_locked(cache));
}

void cache_layer_abandon(struct cache_layer *layer, const char *reason)
{
	LOCK_GUARD(&layer->cache->lock);
	cache_layer_degrade_locked(layer, reason);
}

void cache_layer_orphan(struct cache_layer *layer, enum cache_orphan_reason reason)
{
	struct cache *cache = layer->cache;

	LOCK_GUARD(&cache->lock);
	if (layer->status.state == CACHE_LAYER_ACTIVE && is_dirty(layer))
		orphan_locked(layer, reason);
	close_locked(layer, 0);
}

void cache_layer_discard(struct cache_layer *layer)
{
	struct cache *cache = layer->cache;
	uint32_t id = layer->id;

	LOCK_GUARD(&cache->lock);
	g_assert(layer->opens == 1);
	if (layer->status.state == CACHE_LAYER_DEGRADED)
		id = layer->drop_id;
	else if (!layer->declared)
		id = 0;
	if (id && !log_drop_locked(cache, id))
		g_array_append_val(cache->drops, id);
	remove_locked(layer);
	condition_signal(&cache->reclaim.wanted);
}

static int purge_locked(struct cache *cache, struct cache_layer *layer)
{
	cache_assert_locked(cache);
	if (layer->opens > 0)
		return -EBUSY;
	if (layer->declared && !log_drop_locked(cache, layer->id))
		return -ENOSPC;
	remove_locked(layer);
	condition_signal(&cache->reclaim.wanted);
	return 0;
}

int cache_layer_purge(struct cache *cache, uint32_t id)
{
	struct cache_layer *layer;
	int result;

	LOCK_GUARD(&cache->lock);
	wait_for_room_relock(cache, LOG_ENTRY);
	layer = layers_by_id(cache->layers, id);
	result = layer ? purge_locked(cache, layer) : -ENOENT;
	return result < 0 ? result : log_wait_durable_relock(cache, log_flush_locked(cache));
}

int cache_layer_forget(struct cache *cache, const uint8_t identity[CACHE_ID_BYTES])
{
	const struct cache_layer *layer;
	uint32_t id = 0;

	lock_take(&cache->lock);
	layer = layers_by_identity(cache->layers, identity);
	if (layer)
		id = layer->id;
	lock_let_go(&cache->lock);
	return layer ? cache_layer_purge(cache, id) : 0;
}

struct cache *cache_layer_cache(const struct cache_layer *layer)
{
	return layer->cache;
}
