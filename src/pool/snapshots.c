/* Which snapshots there are. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "disk/keeper.h"
#include "in_log.h"
#include "internal.h"
#include "pool/snapshot.h"
#include "tags.h"

static void free_snapshot(void *data)
{
	struct disk_snapshot *snapshot = data;

	g_free(snapshot->tag);
	g_free(snapshot->path);
	g_free(snapshot);
}

static uint64_t dirty_bytes_of(struct disk_pool *pool, ino_t inode, dev_t device)
{
	struct chain_link link = {.inode = inode, .device = device};
	struct disk *keeper = keeper_find(pool->pool_cache, &link);
	struct disk_status status = {0};

	if (keeper)
		disk_get_status(keeper, &status);
	disk_unref(keeper);
	return status.dirty_bytes;
}

/* When the file at PATH was made; 0: its store does not tell. */
static int64_t born_s(const char *path)
{
	struct statx st;

	if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BTIME, &st) < 0 || !(st.stx_mask & STATX_BTIME))
		return 0;
	return st.stx_btime.tv_sec;
}

/* The leaf that was put on it was made just before; the image itself was written last at that time, or later where it
 * was dirty. A copy of both was made later, and has been written when the original was. */
static int64_t taken_s(const struct stat *st, const char *child)
{
	int64_t born = child ? born_s(child) : 0;

	return born ? MIN(born, st->st_mtim.tv_sec) : st->st_mtim.tv_sec;
}

/* CHILD: what stands on it; NULL: nobody knows. */
static struct disk_snapshot *look_at(struct disk_pool *pool, const char *path, char *tag, const char *child)
{
	struct disk_snapshot *found = g_new0(struct disk_snapshot, 1);
	struct image_info info;
	enum image_format format;
	struct stat st;

	found->tag = tag;
	found->path = g_strdup(path);
	found->below = child;
	if (stat(path, &st) == 0) {
		found->allocated_bytes = (uint64_t)st.st_blocks * 512;
		found->dirty_bytes = dirty_bytes_of(pool, st.st_ino, st.st_dev);
		found->taken_s = taken_s(&st, child);
	}
	format = image_probe(path, NULL);
	if (format != IMAGE_FORMAT_NONE && image_read_info(path, format, &info, NULL)) {
		found->size_bytes = info.size_bytes;
		image_info_clear(&info);
	}
	return found;
}

/* Those in the chain, in its order. */
static void add_below(struct disk_pool *pool, const GPtrArray *links, const char *stem, GPtrArray *snapshots)
{
	for (guint i = 1; i < links->len; i++) {
		const struct chain_link *link = links->pdata[i], *child = links->pdata[i - 1];

		if (chain_is_sealed_name(link->path))
			g_ptr_array_add(snapshots, look_at(pool, link->path,
							   pool_tag_of(pool_file_name(link->path), stem), child->path));
	}
}

/* Every sealed image that a disk stands on. */
static GHashTable *paths_below(struct disk_pool *pool)
{
	g_autoptr(GPtrArray) disks = disk_pool_shown(pool);
	GHashTable *paths = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

	for (guint i = 0; i < disks->len; i++) {
		g_autoptr(GPtrArray) links = disk_get_links(disks->pdata[i]);

		for (guint j = 1; j < links->len; j++)
			g_hash_table_add(paths, g_strdup(((const struct chain_link *)links->pdata[j])->path));
	}
	return paths;
}

static gint compare_snapshots(gconstpointer a, gconstpointer b)
{
	const struct disk_snapshot *const *first = a, *const *second = b;

	if ((*first)->taken_s != (*second)->taken_s)
		return (*first)->taken_s < (*second)->taken_s ? 1 : -1;
	return strcmp((*first)->tag, (*second)->tag);
}

/* Of most files of a large pool that is all that is asked. */
static bool begins_with(const char *file, const char *stem)
{
	size_t length = strlen(stem);

	return strncmp(file, stem, length) == 0 && file[length] == '@';
}

/* Those with the disk's name that no disk stands on. FILES: all there are. */
static void add_beside(struct disk_pool *pool, GHashTable *files, const char *stem, GPtrArray *snapshots)
{
	g_autoptr(GHashTable) below = NULL;
	g_autoptr(GPtrArray) found = g_ptr_array_new();
	GHashTableIter iter;
	gpointer file;

	g_hash_table_iter_init(&iter, files);
	while (g_hash_table_iter_next(&iter, NULL, &file)) {
		g_autofree char *path = NULL, *tag = NULL;

		if (!begins_with(file, stem))
			continue;
		tag = pool_tag_of(file, stem);
		if (strchr(tag, '@'))
			continue;
		path = g_build_filename(disk_pool_path(pool), SEALED_DIRECTORY, file, NULL);
		if (!below)
			below = paths_below(pool);
		if (!g_hash_table_contains(below, path))
			g_ptr_array_add(found, look_at(pool, path, g_steal_pointer(&tag), NULL));
	}
	g_ptr_array_sort(found, compare_snapshots);
	for (guint i = 0; i < found->len; i++)
		g_ptr_array_add(snapshots, found->pdata[i]);
}

static GPtrArray *list_sealed(struct disk_pool *pool, struct disk *disk, GError **error)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	g_autofree char *stem = pool_stem_of_file(pool_file_name(((const struct chain_link *)links->pdata[0])->path));
	g_autoptr(GHashTable) files = pool_sealed_stems(pool, error);
	GPtrArray *snapshots;

	if (!files)
		return NULL;
	snapshots = g_ptr_array_new_with_free_func(free_snapshot);
	add_below(pool, links, stem, snapshots);
	add_beside(pool, files, stem, snapshots);
	return snapshots;
}

GPtrArray *disk_pool_snapshots(struct disk_pool *pool, struct disk *disk, GError **error)
{
	return disk->mode == DISK_MODE_EPHEMERAL ? pool_list_saved(disk, free_snapshot)
						 : list_sealed(pool, disk, error);
}
