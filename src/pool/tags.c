/* Names of sealed images: web1@mon.leaf is the snapshot mon of web1. */
#include "tags.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/nearest.h"

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

static int add_stems(int fd, GHashTable *stems)
{
	DIR *list = fdopendir(fd);
	struct dirent *entry;
	int result;

	if (!list) {
		result = -errno;
		close(fd);
		return result;
	}
	while ((errno = 0, entry = readdir(list)))
		g_hash_table_insert(stems, pool_stem_of_file(entry->d_name), g_strdup(entry->d_name));
	result = -errno;
	closedir(list);
	return result;
}

GHashTable *pool_sealed_stems(struct disk_pool *pool, GError **error)
{
	g_autoptr(GHashTable) stems = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	int fd = place_enter(pool_place(pool)->fd, SEALED_DIRECTORY, false);
	int result = fd < 0 ? fd : add_stems(fd, stems);

	if (result == 0 || result == -ENOENT)
		return g_steal_pointer(&stems);
	error_set_errno(error, -result, "%s/" SEALED_DIRECTORY ": cannot be listed", pool_place(pool)->path);
	return NULL;
}

/* Of the snapshots that STEM has in STEMS. */
static bool refuse_tag(GHashTable *stems, const char *stem, const char *tag, GError **error)
{
	g_autofree char *text = NULL;
	struct nearest nearest;
	size_t length = strlen(stem);
	GHashTableIter iter;
	gpointer name;

	nearest_begin(&nearest, tag);
	g_hash_table_iter_init(&iter, stems);
	while (g_hash_table_iter_next(&iter, &name, NULL))
		if (strncmp(name, stem, length) == 0 && ((const char *)name)[length] == '@')
			nearest_offer(&nearest, (const char *)name + length + 1);
	text = nearest_text(&nearest, "");
	return error_set(error, ENOENT, "%s.img: has no snapshot %s%s", stem, tag, text);
}

char *pool_sealed_file(struct disk_pool *pool, const char *stem, const char *tag, GError **error)
{
	g_autofree char *wanted = strchr(tag, '@') ? g_strdup(tag) : g_strconcat(stem, "@", tag, NULL);
	g_autoptr(GHashTable) stems = pool_sealed_stems(pool, error);
	const char *file = stems ? g_hash_table_lookup(stems, wanted) : NULL;

	if (stems && !file)
		refuse_tag(stems, stem, tag, error);
	return g_strdup(file);
}

char *pool_tag_of(const char *file, const char *stem)
{
	g_autofree char *name = pool_stem_of_file(file);
	const char *at = strrchr(name, '@');

	return at && (size_t)(at - name) == strlen(stem) && g_str_has_prefix(name, stem) ? g_strdup(at + 1)
											 : g_steal_pointer(&name);
}
