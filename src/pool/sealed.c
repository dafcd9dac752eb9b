/* Sealed layers of which an earlier mount left something in the cache: the images that they are of. */
#include <dirent.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/log.h"
#include "disk/keeper.h"
#include "internal.h"
#include "sealed.h"
#include "layer/key.h"

static bool has_identity(const struct chain_link *link, const uint8_t identity[CACHE_ID_BYTES])
{
	uint8_t own[CACHE_ID_BYTES];

	layer_identity_of(link, NULL, own);
	return memcmp(own, identity, CACHE_ID_BYTES) == 0;
}

/* The chain of the image called NAME, where it has IDENTITY; NULL: it is another, or cannot be told. */
static GPtrArray *links_of(struct disk_pool *pool, const char *name, const uint8_t identity[CACHE_ID_BYTES])
{
	g_autofree char *path = g_build_filename(disk_pool_path(pool), SEALED_DIRECTORY, name, NULL);
	g_autoptr(GPtrArray) links = chain_links_new();
	g_autoptr(GError) error = NULL;
	enum image_format format = image_probe(path, &error);

	if (format != IMAGE_FORMAT_NONE && chain_resolve(path, format, pool->roots, NULL, links, &error) &&
	    has_identity(links->pdata[0], identity))
		return g_steal_pointer(&links);
	if (error)
		log_debug(LOG_DISK, "%s", error->message);
	return NULL;
}

static GPtrArray *find_links(struct disk_pool *pool, const uint8_t identity[CACHE_ID_BYTES])
{
	int fd = place_enter(pool_place(pool)->fd, SEALED_DIRECTORY, false);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	GPtrArray *links = NULL;
	struct dirent *entry;

	while (!links && directory && (entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			links = links_of(pool, entry->d_name, identity);
	if (directory)
		closedir(directory);
	else if (fd >= 0)
		close(fd);
	return links;
}

struct disk *pool_find_sealed(struct disk_pool *pool, const struct cache_layer_dirty *dirty)
{
	GPtrArray *links = pool->options.read_only ? NULL : find_links(pool, dirty->identity);

	return links ? keeper_new(links, DISK_MODE_WRITEBACK, pool->pool_cache, &pool->owner) : NULL;
}

struct pass {
	struct disk_pool *pool;
	GPtrArray *disks;
};

static void keep(void *opaque, const struct cache_layer_dirty *dirty)
{
	struct pass *pass = opaque;
	struct disk *keeper = pool_find_dirty(pass->disks, dirty) ? NULL : pool_find_sealed(pass->pool, dirty);
	g_autoptr(GError) error = NULL;

	if (keeper && !disk_keep(keeper, &error))
		log_warning_limited(keeper->name, "keeper", "%s", error->message);
	disk_unref(keeper);
}

void pool_keep_sealed(struct disk_pool *pool)
{
	g_autoptr(GPtrArray) disks = disk_pool_shown(pool);
	struct pass pass = {pool, disks};

	cache_layer_foreach_dirty(pool->pool_cache->cache, false, keep, &pass);
}
