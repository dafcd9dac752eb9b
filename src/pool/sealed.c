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

/* The image called NAME, where it has IDENTITY; NULL: it is another, or cannot be told. Its chain, which may be on a
 * store that hangs, is for whoever opens it. */
static struct chain_link *link_of(struct disk_pool *pool, int directory, const char *name,
				  const uint8_t identity[CACHE_ID_BYTES])
{
	g_autofree char *path = g_build_filename(disk_pool_path(pool), SEALED_DIRECTORY, name, NULL);
	g_autoptr(GError) error = NULL;
	struct stat st;
	int fd = place_find_at(directory, name, &st);
	enum image_format format = fd >= 0 && S_ISREG(st.st_mode) ? image_probe(path, &error) : IMAGE_FORMAT_NONE;
	struct chain_link *link = NULL;

	if (format != IMAGE_FORMAT_NONE)
		link = chain_link_of_file(path, fd, format, pool->roots, &error);
	if (link && !has_identity(link, identity)) {
		chain_link_unref(link);
		link = NULL;
	}
	if (error)
		log_debug(LOG_DISK, "%s", error->message);
	if (fd >= 0)
		close(fd);
	return link;
}

static struct chain_link *find_in(struct disk_pool *pool, DIR *directory, const struct cache_layer_dirty *dirty)
{
	struct chain_link *link = NULL;
	struct dirent *entry;

	if (chain_is_sealed_name(dirty->name))
		link = link_of(pool, dirfd(directory), pool_file_name(dirty->name), dirty->identity);
	while (!link && (entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			link = link_of(pool, dirfd(directory), entry->d_name, dirty->identity);
	return link;
}

/* By the name that the cache knows, or among all: a crash may have come before the cache knew it. */
static struct chain_link *find_link(struct disk_pool *pool, const struct cache_layer_dirty *dirty)
{
	int fd = place_enter(pool_place(pool)->fd, SEALED_DIRECTORY, false);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	struct chain_link *link = directory ? find_in(pool, directory, dirty) : NULL;

	if (directory)
		closedir(directory);
	else if (fd >= 0)
		close(fd);
	return link;
}

struct disk *pool_find_sealed(struct disk_pool *pool, const struct cache_layer_dirty *dirty)
{
	struct chain_link *link = pool->options.read_only ? NULL : find_link(pool, dirty);
	GPtrArray *links;

	if (!link)
		return NULL;
	links = chain_links_new();
	g_ptr_array_add(links, link);
	return keeper_new(links, DISK_MODE_WRITEBACK, pool->pool_cache, &pool->owner);
}
