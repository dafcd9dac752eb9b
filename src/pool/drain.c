/* Drains of all disks of a pool.
 *
 * What is dirty belongs to disks that are open, or to images that nobody has
 * opened since the mount began: those are opened for it. */
#include <errno.h>
#include <string.h>

#include "cache/layer.h"
#include "core/error.h"
#include "core/log.h"
#include "internal.h"
#include "layer/share.h"
#include "migrate/migrator.h"

struct drain_all {
	struct disk_pool *pool;
	bool (*go_on)(void *opaque, uint64_t dirty_bytes);
	void *opaque;
	GPtrArray *disks;
	GString *left; /* sentences */
	uint64_t left_bytes;
	bool given_up;
};

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

/* Another image may lie at its path by now. */
static bool is_left(struct disk *disk)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);

	return share_left_as_found(links->pdata[0], disk->pool_cache) > 0;
}

/* The cache keeps as much of a path. */
struct disk *pool_find_left(GPtrArray *disks, const char *path)
{
	for (guint i = 0; i < disks->len; i++)
		if (strncmp(disk_image_path(disks->pdata[i]), path, CACHE_NAME_BYTES) == 0 && is_left(disks->pdata[i]))
			return disks->pdata[i];
	return NULL;
}

static void note_nameless(void *opaque, const char *name, uint64_t dirty_blocks)
{
	struct drain_all *all = opaque;
	g_autofree char *sentence = g_strdup_printf("%s: is not among the disks of this mount", name);

	if (!pool_find_left(all->disks, name))
		note_left(all, dirty_blocks << BLOCK_SHIFT, sentence);
}

/* All at once; those that are opened or closed meanwhile too. */
static void urge_each(const struct drain_all *all, int change)
{
	for (guint i = 0; i < all->disks->len; i++)
		backlog_urge(((struct disk *)all->disks->pdata[i])->leaf, change);
}

static void drain_each(struct drain_all *all)
{
	urge_each(all, 1);
	for (guint i = 0; i < all->disks->len; i++) {
		struct disk *disk = all->disks->pdata[i];
		g_autoptr(GError) error = NULL;

		if (!all->given_up && disk_drain(disk, go_on_with_all, all, &error) < 0) {
			/* Renamed or removed meanwhile, which it was clean for. */
			if (all->given_up || disk_pool_shows(all->pool, disk))
				note_left(all, dirty_bytes_of(disk), error->message);
		} else if (all->given_up && backlog_is_needed(disk->leaf))
			note_left(all, dirty_bytes_of(disk), disk->name);
	}
	urge_each(all, -1);
}

bool disk_pool_drain(struct disk_pool *pool, bool (*go_on)(void *opaque, uint64_t dirty_bytes), void *opaque,
		     GError **error)
{
	g_autoptr(GPtrArray) disks = disk_pool_shown(pool);
	struct pool_cache *pool_cache = pool->pool_cache;
	g_autoptr(GString) left = g_string_new(NULL);
	g_autofree char *size = NULL;
	struct drain_all all = {.pool = pool, .go_on = go_on, .opaque = opaque, .disks = disks, .left = left};

	if (!pool_cache)
		return true;
	drain_each(&all);
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
