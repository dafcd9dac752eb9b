/* Snapshots that are deleted. */
#include <errno.h>
#include <string.h>

#include "core/error.h"
#include "disk/saved.h"
#include "pool/snapshot.h"
#include "removal.h"
#include "tags.h"

static bool stands_on(struct disk *disk, const char *path)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);

	for (guint i = 1; i < links->len; i++)
		if (strcmp(((const struct chain_link *)links->pdata[i])->path, path) == 0)
			return true;
	return false;
}

static bool nobody_stands_on(struct disk_pool *pool, const char *path, GError **error)
{
	g_autoptr(GPtrArray) disks = disk_pool_shown(pool);

	for (guint i = 0; i < disks->len; i++)
		if (stands_on(disks->pdata[i], path))
			return error_set(error, EBUSY,
					 "%s: %s stands on it, and needs it: take that disk to an earlier snapshot, or "
					 "put a copy of it, made with leafctl convert, in its place",
					 path, disk_name(disks->pdata[i]));
	return true;
}

bool disk_pool_delete(struct disk_pool *pool, struct disk *disk, const char *tag, bool (*go_on)(void *opaque),
		      void *opaque, GError **error)
{
	const char *image = pool_file_name(disk_image_path(disk));
	g_autofree char *stem = pool_stem_of_file(image), *name = NULL, *path = NULL;
	struct succession removal = {0};
	bool good;

	if (disk->mode == DISK_MODE_EPHEMERAL)
		return disk_forget_saved(disk, tag, error);
	if (pool->options.read_only)
		return error_set(error, EROFS, "%s: the pool is mounted read-only", disk_name(disk));
	LOCK_GUARD(&pool->scanning);
	name = pool_sealed_file(pool, stem, tag, error);
	path = name ? g_build_filename(disk_pool_path(pool), SEALED_DIRECTORY, name, NULL) : NULL;
	good = name && nobody_stands_on(pool, path, error) &&
	       removal_run_locked(pool, image, name, &removal, go_on, opaque, error);
	succession_clear(&removal);
	return good;
}
