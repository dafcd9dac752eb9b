/* Disks that a command has open to change what they are made of. */
#include "changers.h"

#include <errno.h>

#include "core/error.h"

static struct disk *open_one(struct disk_pool *pool, const char *name, struct disk *const *others, unsigned count,
			     GError **error)
{
	g_autoptr(GError) inner = NULL;
	struct disk *disk = disk_pool_lookup(pool, name, error);

	for (unsigned i = 0; disk && i < count && !inner; i++)
		if (disk == others[i])
			error_set(&inner, EINVAL, "%s: is named twice", name);
	if (disk && !inner && disk_open(disk, true, &inner) == 0) {
		disk->changers++;
		return disk;
	}
	disk_unref(disk);
	if (inner)
		g_propagate_error(error, g_steal_pointer(&inner));
	return NULL;
}

bool pool_open_to_change(struct disk_pool *pool, const char *const *names, struct disk **disks, GError **error)
{
	for (unsigned i = 0; names[i]; i++) {
		disks[i] = open_one(pool, names[i], disks, i, error);
		if (!disks[i]) {
			pool_close_changed(disks, i);
			return false;
		}
	}
	return true;
}

void pool_close_changed(struct disk **disks, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		disks[i]->changers--;
		(void)disk_close(disks[i]);
		disk_unref(disks[i]);
		disks[i] = NULL;
	}
}
