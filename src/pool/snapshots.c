/* Which snapshots there are. */
#include <dirent.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "disk/keeper.h"
#include "internal.h"
#include "pool/snapshot.h"

static void free_snapshot(void *data)
{
	struct disk_snapshot *snapshot = data;

	g_free(snapshot->tag);
	g_free(snapshot->path);
	g_free(snapshot);
}

char *pool_stem_of_file(const char *file)
{
	const char *dot = strrchr(file, '.');

	return dot && dot > file ? g_strndup(file, (gsize)(dot - file)) : g_strdup(file);
}

char *pool_sealed_name(const char *file, const char *tag)
{
	g_autofree char *stem = pool_stem_of_file(file);

	return g_strconcat(stem, "@", tag, file + strlen(stem), NULL);
}

/* The disk's stem, with @ behind it. */
static char *prefix_of(const struct disk *disk)
{
	g_autofree char *file = g_path_get_basename(disk->leaf->link->path), *stem = pool_stem_of_file(file);

	return g_strconcat(stem, "@", NULL);
}

static bool is_below(const GPtrArray *links, const char *path)
{
	for (guint i = 1; i < links->len; i++)
		if (strcmp(((const struct chain_link *)links->pdata[i])->path, path) == 0)
			return true;
	return false;
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

static struct disk_snapshot *look_at(struct disk_pool *pool, const char *directory, const char *name,
				     const char *prefix, const GPtrArray *links)
{
	struct disk_snapshot *found = g_new0(struct disk_snapshot, 1);
	const char *tag = name + strlen(prefix), *dot = strrchr(tag, '.');
	struct image_info info;
	enum image_format format;
	struct stat st;

	found->tag = dot ? g_strndup(tag, (gsize)(dot - tag)) : g_strdup(tag);
	found->path = g_build_filename(directory, name, NULL);
	found->below = is_below(links, found->path);
	if (stat(found->path, &st) == 0) {
		found->allocated_bytes = (uint64_t)st.st_blocks * 512;
		found->dirty_bytes = dirty_bytes_of(pool, st.st_ino, st.st_dev);
		found->taken_s = st.st_mtim.tv_sec;
	}
	format = image_probe(found->path, NULL);
	if (format != IMAGE_FORMAT_NONE && image_read_info(found->path, format, &info, NULL)) {
		found->size_bytes = info.size_bytes;
		image_info_clear(&info);
	}
	return found;
}

static gint compare_snapshots(gconstpointer a, gconstpointer b)
{
	const struct disk_snapshot *const *first = a, *const *second = b;

	if ((*first)->taken_s != (*second)->taken_s)
		return (*first)->taken_s < (*second)->taken_s ? 1 : -1;
	return strcmp((*first)->tag, (*second)->tag);
}

GPtrArray *disk_pool_snapshots(struct disk_pool *pool, struct disk *disk, GError **error)
{
	g_autofree char *directory = g_build_filename(disk_pool_path(pool), SEALED_DIRECTORY, NULL);
	g_autofree char *prefix = prefix_of(disk);
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	GPtrArray *snapshots = g_ptr_array_new_with_free_func(free_snapshot);
	int fd = place_enter(pool_place(pool)->fd, SEALED_DIRECTORY, false);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (fd < 0 && fd != -ENOENT) {
		error_set_errno(error, -fd, "%s: cannot be listed", directory);
		g_ptr_array_unref(snapshots);
		return NULL;
	}
	while (list && (entry = readdir(list)))
		if (g_str_has_prefix(entry->d_name, prefix))
			g_ptr_array_add(snapshots, look_at(pool, directory, entry->d_name, prefix, links));
	if (list)
		closedir(list);
	g_ptr_array_sort(snapshots, compare_snapshots);
	return snapshots;
}
