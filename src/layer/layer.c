/* Layers: the object.
 *
 * Those below a leaf stand in one table, by file, offset, and whether they are
 * cached. Its lock guards
 * their use and their users; it is not held while an image is opened or closed. One
 * that is being opened or closed stands in the table, and who wants the same one
 * waits for it:
 *
 *     OPENING -> OPEN            with the one who opened it as its first user
 *     a leaf  -> OPEN            it is sealed, with its keeper as its first user
 *     OPENING -> gone            it could not be opened; who waits tries himself
 *     OPEN -> CLOSING -> gone    with the last user */
#include "layer/layer.h"

#include "core/config.h"
#include <errno.h>

#include "core/error.h"
#include "core/thread.h"
#include "layer/claim.h"
#include "layer/overflow.h"
#include "layer/parent.h"
#include "layer/pool_cache.h"
#include "layer/share.h"

static struct lock table_lock = LOCK_INIT(LOCK_RANK_LAYERS);
static struct condition table_changed = CONDITION_INIT; /* a use, or a layer is gone */
static GPtrArray *table;

struct layer *layer_new(const char *name, struct pool_cache *pool_cache, const struct chain_roots *roots)
{
	struct layer *layer = g_new0(struct layer, 1);

	layer->references = 1;
	layer->name = g_strdup(name);
	layer->pool_cache = pool_cache;
	layer->roots = chain_roots_ref(roots);
	list_init(&layer->overflow_waiters);
	lock_init(&layer->lock, LOCK_RANK_OVERFLOW);
	backlog_init(&layer->backlog);
	return layer;
}

void layer_unref(struct layer *layer)
{
	if (--layer->references > 0)
		return;
	(void)layer_close_image(layer);
	cache_layer_close(layer->cached, 0);
	overflow_free(layer);
	g_free(layer->backlog.reason);
	if (layer->backlog.after)
		layer_unref(layer->backlog.after);
	chain_link_unref(layer->link);
	chain_link_unref(layer->former_link);
	claim_forget(layer);
	if (layer->standing)
		g_ptr_array_unref(layer->standing);
	if (layer->children)
		g_array_unref(layer->children);
	chain_roots_unref(layer->roots);
	lock_destroy(&layer->lock);
	g_free(layer->name);
	g_free(layer);
}

/* ---- A leaf ------------------------------------------------------------------- */

void layer_set_link(struct layer *layer, const struct chain_link *link)
{
	struct chain_link *before = layer->link;

	layer->link = chain_link_ref(link);
	chain_link_unref(before);
}

bool layer_open_image(struct layer *layer, unsigned flags, GError **error)
{
	layer->image = chain_link_open(layer->link, flags, error);
	return layer->image;
}

int layer_close_image(struct layer *layer)
{
	int result = image_close(layer->image);

	layer->image = NULL;
	layer->claim = (struct owner_claim){0};
	return result;
}

void layer_go_after(struct layer *layer, struct layer *sealed)
{
	struct layer *before = layer->pool_cache ? backlog_put_after(layer, sealed) : NULL;

	if (before)
		layer_unref(before);
}

bool layer_flush_image(struct layer *layer, GError **error)
{
	struct image_op flush = {0};
	int result = layer->image->begun ? image_run_blocking(layer->image, &flush, image_flush) : 0;

	return result == 0 || error_set_errno(error, -result, "%s: cannot be flushed", layer->link->path);
}

/* ---- Below a leaf -------------------------------------------------------------- */

static struct layer *find_locked(const struct chain_link *link, const struct pool_cache *pool_cache, bool cached)
{
	lock_assert_mine(&table_lock);
	for (guint i = 0; table && i < table->len; i++) {
		struct layer *layer = table->pdata[i];

		if (!layer->log && layer->link->device == link->device && layer->link->inode == link->inode &&
		    layer->link->base_offset == link->base_offset && layer->pool_cache == pool_cache &&
		    (layer->sealed || layer->wants_share == cached))
			return layer;
	}
	return NULL;
}

static void set_use_locked(struct layer *layer, enum layer_use use)
{
	lock_assert_mine(&table_lock);
	layer->use = use;
	condition_broadcast(&table_changed);
}

static void add_locked(struct layer *layer, enum layer_use use)
{
	lock_assert_mine(&table_lock);
	layer->use = use;
	if (!table)
		table = g_ptr_array_new();
	g_ptr_array_add(table, layer);
}

static struct layer *add_new_locked(const struct chain_link *link, struct pool_cache *pool_cache, bool cached)
{
	struct layer *layer = layer_new(link->path, pool_cache, link->roots);

	lock_assert_mine(&table_lock);
	layer_set_link(layer, link);
	layer->wants_share = cached;
	add_locked(layer, USE_OPENING);
	return layer;
}

static void remove_relock(struct layer *layer)
{
	lock_assert_mine(&table_lock);
	set_use_locked(layer, USE_CLOSING);
	lock_let_go(&table_lock);
	share_close(layer, false); /* a CLEAN one keeps its stamp, a DIRTY one all it has */
	(void)layer_close_image(layer);
	lock_take(&table_lock);
	g_ptr_array_remove_fast(table, layer);
	condition_broadcast(&table_changed);
	lock_let_go(&table_lock);
	layer_unref(layer);
	lock_take(&table_lock);
}

/* Nothing below a leaf is read while its newest changes are elsewhere. */
static bool has_all(struct layer *layer, GError **error)
{
	g_autofree char *size = NULL;
	uint64_t left = share_left(layer);

	if (left == 0)
		return true;
	size = config_format_size(left << BLOCK_SHIFT);
	return error_set(error, EBUSY,
			 "%s: the cache has %s of changes of it that are not in the pool yet, which a disk on it would "
			 "not show; leafctl cache drain brings them there",
			 layer->name, size);
}

static struct layer *open_relock(const struct chain_link *link, struct pool_cache *pool_cache, bool cached,
				 GError **error)
{
	struct layer *layer = add_new_locked(link, pool_cache, cached);
	bool good;

	lock_assert_mine(&table_lock);
	lock_let_go(&table_lock);
	good = layer_open_image(layer, 0, error) && has_all(layer, error);
	if (good && cached)
		share_open(layer, false);
	if (good)
		layer_check(layer);
	lock_take(&table_lock);
	if (!good) {
		remove_relock(layer);
		return NULL;
	}
	layer->users = 1;
	set_use_locked(layer, USE_OPEN);
	return layer;
}

/* What was read of the image before and what is read now would be mixed. A sealed one is written
 * by us alone, and has the same content all the while. */
static bool may_be_shared(const struct layer *layer, const struct chain_link *link, GError **error)
{
	return layer->sealed || parent_is_unchanged(layer->link, link) ||
	       error_set(error, ESTALE,
			 "%s: was written while disks on it are open; close them first, they may have read both",
			 link->path);
}

struct layer *layer_get(const struct chain_link *link, struct pool_cache *pool_cache, bool cached, GError **error)
{
	struct layer *layer;

	thread_assert_may_wait();
	LOCK_GUARD(&table_lock);
	while ((layer = find_locked(link, pool_cache, cached)) && layer->use != USE_OPEN)
		lock_wait(&table_lock, &table_changed);
	if (!layer)
		return open_relock(link, pool_cache, cached, error);
	if (!may_be_shared(layer, link, error))
		return NULL;
	layer->users++;
	return layer;
}

struct layer *layer_use(struct layer *layer)
{
	LOCK_GUARD(&table_lock);
	layer->users++;
	return layer;
}

void layer_publish(struct layer *layer)
{
	LOCK_GUARD(&table_lock);
	layer->users = 1;
	add_locked(layer_ref(layer), USE_OPEN);
}

void layer_put(struct layer *layer)
{
	thread_assert_may_wait();
	LOCK_GUARD(&table_lock);
	if (--layer->users == 0)
		remove_relock(layer);
}
