/* Drains of all disks of a pool.
 *
 * What is dirty belongs to disks that are open, or to images that nobody has
 * opened since the mount began: those are opened for it. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "cache/layer.h"
#include "core/error.h"
#include "core/log.h"
#include "core/shell.h"
#include "image/image.h"
#include "internal.h"
#include "layer/backlog_locked.h"
#include "layer/key.h"
#include "layer/layer.h"
#include "migrate/migrator.h"

struct drain_all {
	struct disk_pool *pool;
	bool (*go_on)(void *opaque, uint64_t dirty_bytes);
	void *opaque;
	GPtrArray *disks;
	GPtrArray *refused; /* struct refusal */
	GString *left;	    /* sentences */
	uint64_t left_bytes;
	bool given_up;
};

/* An image that was moved, removed or replaced while its disk is open is that disk's all the
 * same, under a name that the pool has no more or has for another. */
static void add_unseen(struct disk_pool *pool, GPtrArray *disks)
{
	g_autoptr(GHashTable) shown = g_hash_table_new(NULL, NULL);
	struct backlogs *backlogs = &pool->pool_cache->backlogs;

	for (guint i = 0; i < disks->len; i++)
		g_hash_table_add(shown, disks->pdata[i]);
	LOCK_GUARD(&backlogs->lock);
	list_foreach(node, &backlogs->layers)
	{
		struct disk *disk = backlog_layer(node)->disk;

		if (!g_hash_table_contains(shown, disk) && disk_ref_if_alive(disk))
			g_ptr_array_add(disks, disk);
	}
}

GPtrArray *disk_pool_dirty(struct disk_pool *pool)
{
	GPtrArray *disks = disk_pool_shown(pool);

	if (pool->pool_cache)
		add_unseen(pool, disks);
	return disks;
}

static uint64_t dirty_bytes_of(struct disk *disk)
{
	struct disk_status status;

	disk_get_status(disk, &status);
	return status.dirty_bytes;
}

static uint64_t dirty_bytes_of_all(const struct drain_all *all)
{
	uint64_t bytes = 0;

	for (guint i = 0; i < all->disks->len; i++)
		bytes += dirty_bytes_of(all->disks->pdata[i]);
	return bytes;
}

static bool go_on_with_all(void *opaque, uint64_t dirty_bytes)
{
	struct drain_all *all = opaque;

	(void)dirty_bytes;
	all->given_up = all->go_on && !all->go_on(all->opaque, dirty_bytes_of_all(all));
	return !all->given_up;
}

static void note_left(struct drain_all *all, uint64_t bytes, const char *sentence)
{
	g_string_append_printf(all->left, "%s%s", all->left->len ? "; " : "", sentence);
	all->left_bytes += bytes;
}

static bool has_identity(struct disk *disk, const uint8_t identity[CACHE_ID_BYTES])
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	uint8_t own[CACHE_ID_BYTES];

	layer_identity_of(links->pdata[0], NULL, own);
	return memcmp(own, identity, CACHE_ID_BYTES) == 0;
}

/* Whose image it is; of several, which are copies, that with the name, of which the cache
 * keeps so much. */
struct disk *pool_find_dirty(GPtrArray *disks, const struct cache_layer_dirty *dirty)
{
	struct disk *found = NULL;

	for (guint i = 0; i < disks->len; i++) {
		struct disk *disk = disks->pdata[i];

		if (!has_identity(disk, dirty->identity))
			continue;
		if (strncmp(disk_image_path(disk), dirty->name, CACHE_NAME_BYTES) == 0)
			return disk;
		found = found ? found : disk;
	}
	return found;
}

/* With the commands that settle it: no mount ever does. */
char *pool_nameless_text(const struct disk_pool *pool, const struct cache_layer_dirty *dirty)
{
	const char *path = pool->owner.cache_path;
	g_autofree char *cache = shell_quote(path ? path : "CACHE"), *name = shell_quote(dirty->name);

	return g_strdup_printf("%s: is not among the disks of this mount; put its image in place again, or, with the "
			       "cache in no mount, save them (leafctl cache dump --layer %s -d DIR %s) and forget "
			       "them (leafctl cache purge --force %s %s)",
			       dirty->name, name, cache, cache, name);
}

static void note_nameless(void *opaque, const struct cache_layer_dirty *dirty)
{
	struct drain_all *all = opaque;
	g_autofree char *sentence = pool_nameless_text(all->pool, dirty);

	if (!pool_find_dirty(all->disks, dirty))
		note_left(all, dirty->dirty_blocks << BLOCK_SHIFT, sentence);
}

static bool has_lost_its_image(struct disk *disk)
{
	struct stat st;

	LOCK_GUARD(&disk->open_lock);
	return disk->leaf->image && image_stat(disk->leaf->image, &st) == 0 && st.st_nlink == 0;
}

static bool is_needed(struct disk *disk)
{
	g_autoptr(layer_held) leaf = disk_hold_leaf(disk);

	return backlog_is_needed(leaf);
}

/* What is written to a file without a name is gone with it: it is not hurried there. */
static void leave_those_without_image(struct drain_all *all)
{
	for (guint i = all->disks->len; i-- > 0;) {
		struct disk *disk = all->disks->pdata[i];
		g_autofree char *sentence = NULL;

		if (disk_pool_shows(all->pool, disk) || !is_needed(disk) || !has_lost_its_image(disk))
			continue;
		sentence = g_strdup_printf("%s: was removed, or another file put in its place, while it was open",
					   disk_image_path(disk));
		note_left(all, dirty_bytes_of(disk), sentence);
		g_ptr_array_remove_index(all->disks, i);
	}
}

/* All at once; those that are opened or closed meanwhile too. */
static GPtrArray *urge_each(const struct drain_all *all)
{
	GPtrArray *leaves = g_ptr_array_new_with_free_func((GDestroyNotify)layer_unref);

	for (guint i = 0; i < all->disks->len; i++) {
		struct layer *leaf = disk_hold_leaf(all->disks->pdata[i]);

		backlog_urge(leaf, 1);
		g_ptr_array_add(leaves, leaf);
	}
	return leaves;
}

/* A copy of an image is refused until what is dirty of that one is in the pool. */
struct refusal {
	struct disk *disk;
	GError *error;
};

static void refusal_free(void *opaque)
{
	struct refusal *refusal = opaque;

	g_error_free(refusal->error);
	g_free(refusal);
}

static void note_refused(struct drain_all *all, struct disk *disk, GError *error)
{
	struct refusal *refusal = g_new(struct refusal, 1);

	*refusal = (struct refusal){disk, error};
	g_ptr_array_add(all->refused, refusal);
}

static void note_those_left(struct drain_all *all)
{
	for (guint i = 0; i < all->refused->len; i++) {
		const struct refusal *refusal = all->refused->pdata[i];
		g_autoptr(layer_held) leaf = disk_hold_leaf(refusal->disk);
		uint64_t bytes = dirty_bytes_of(refusal->disk);

		if (bytes > 0 || layer_state_is_final(backlog_get_state(leaf)))
			note_left(all, bytes, refusal->error->message);
	}
}

static void drain_each(struct drain_all *all)
{
	g_autoptr(GPtrArray) leaves = urge_each(all);

	for (guint i = 0; i < all->disks->len; i++) {
		struct disk *disk = all->disks->pdata[i];
		g_autoptr(GError) error = NULL;

		if (!all->given_up && disk_drain(disk, go_on_with_all, all, &error) < 0) {
			/* Renamed or removed meanwhile through the mount, which it was clean for. */
			if (all->given_up || disk_pool_shows(all->pool, disk) || is_needed(disk))
				note_refused(all, disk, g_steal_pointer(&error));
		} else if (all->given_up && is_needed(disk))
			note_left(all, dirty_bytes_of(disk), disk->name);
	}
	for (guint i = 0; i < leaves->len; i++)
		backlog_urge(leaves->pdata[i], -1);
}

bool disk_pool_drain(struct disk_pool *pool, bool (*go_on)(void *opaque, uint64_t dirty_bytes), void *opaque,
		     GError **error)
{
	g_autoptr(GPtrArray) disks = disk_pool_dirty(pool);
	struct pool_cache *pool_cache = pool->pool_cache;
	g_autoptr(GString) left = g_string_new(NULL);
	g_autofree char *size = NULL;
	g_autoptr(GPtrArray) refused = g_ptr_array_new_with_free_func(refusal_free);
	struct drain_all all = {
		.pool = pool, .go_on = go_on, .opaque = opaque, .disks = disks, .refused = refused, .left = left};

	if (!pool_cache)
		return true;
	leave_those_without_image(&all);
	drain_each(&all);
	note_those_left(&all);
	cache_layer_foreach_dirty(pool_cache->cache, false, note_nameless, &all);
	if (left->len == 0)
		return true;
	size = config_format_size(all.left_bytes);
	return error_set(error, all.given_up ? EINTR : EIO, "%s of changes stay in the cache: %s", size, left->str);
}

/* ---- The end of a mount ------------------------------------------------------------ */

void disk_pool_end(struct disk_pool *pool)
{
	struct pool_cache *pool_cache = pool->pool_cache;

	if (!pool_cache)
		return;
	pool_cache->ending = true;
	migrator_look_again(pool_cache);
}
