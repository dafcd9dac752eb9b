/* What is dirty of a pool: which disk's it is.
 *
 * What the cache has belongs to images, by their identities; a disk that is open has its own. */
#include <string.h>

#include "cache/layer.h"
#include "core/shell.h"
#include "dirty.h"
#include "internal.h"
#include "layer/backlog_locked.h"
#include "layer/key.h"
#include "layer/layer.h"
#include "sealed.h"

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

static bool has_identity(struct disk *disk, const uint8_t identity[CACHE_ID_BYTES])
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	uint8_t own[CACHE_ID_BYTES];

	layer_identity_of(links->pdata[0], NULL, own);
	return memcmp(own, identity, CACHE_ID_BYTES) == 0;
}

static bool has_name(struct disk *disk, const struct cache_layer_dirty *dirty)
{
	return strncmp(disk_image_path(disk), dirty->name, CACHE_NAME_BYTES) == 0;
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
		if (has_name(disk, dirty))
			return disk;
		found = found ? found : disk;
	}
	return found;
}

/* A copy of an image that was sealed meanwhile may have the name that it had. */
struct disk *pool_find_or_keep(struct disk_pool *pool, GPtrArray *disks, const struct cache_layer_dirty *dirty)
{
	struct disk *disk = pool_find_dirty(disks, dirty);
	struct disk *keeper = disk && has_name(disk, dirty) ? NULL : pool_find_sealed(pool, dirty);

	if (keeper)
		return keeper;
	return disk ? disk_ref(disk) : NULL;
}

/* Why the image called FILE is not shown, as the last look found; NULL: for no such reason. */
static char *trouble_of(struct disk_pool *pool, const char *file)
{
	g_autofree char *own = g_strconcat(file, ": ", NULL), *of_path = g_strconcat("/", own, NULL);
	g_auto(GStrv) lines = NULL;

	lock_take(&pool->lock);
	lines = g_strsplit(pool->broken ? pool->broken : "", "\n", -1);
	lock_let_go(&pool->lock);
	for (char **line = lines; *line; line++)
		if (g_str_has_prefix(*line, own) || strstr(*line, of_path))
			return g_strdup(*line);
	return NULL;
}

/* What can be told of it. */
static char *untold_text(struct disk_pool *pool, const struct cache_layer_dirty *dirty)
{
	const char *slash = strrchr(dirty->name, '/');
	g_autofree char *trouble = slash ? trouble_of(pool, slash + 1) : NULL;

	if (trouble)
		return g_strdup_printf("%s: is not shown now: %s", dirty->name, trouble);
	return pool->options.read_only && chain_is_sealed_name(dirty->name)
		       ? g_strdup_printf("%s: gets them in a mount that is not read-only", dirty->name)
		       : NULL;
}

/* With the commands that settle it: no mount ever does. */
char *pool_nameless_text(struct disk_pool *pool, const struct cache_layer_dirty *dirty)
{
	const char *path = pool->owner.cache_path;
	g_autofree char *cache = shell_quote(path ? path : "CACHE"), *name = shell_quote(dirty->name);
	char *text = untold_text(pool, dirty);

	if (text)
		return text;
	return g_strdup_printf("%s: is not among the disks of this mount; put its image in place again, or, with the "
			       "cache in no mount, save them (leafctl cache dump --layer %s -d DIR %s) and forget "
			       "them (leafctl cache purge --force %s %s)",
			       dirty->name, name, cache, cache, name);
}
