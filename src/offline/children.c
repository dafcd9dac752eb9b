/* What is over between parents and children, without a mount: children that are gone, and
 * parents that have changed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/verdict.h"
#include "lineage.h"
#include "offline/offline.h"
#include "open.h"
#include "unlock.h"

/* ---- Children that are gone -------------------------------------------------------- */

static bool is_absent(int result)
{
	return error_class_of(STORE_OPEN, result) == ERROR_ABSENT;
}

static bool leads_to(const char *child, const struct image_parent *reference, const struct stat *parent)
{
	g_autofree char *named = lineage_absolute(child);
	char *real = realpath(child, NULL);
	g_auto(GStrv) paths = chain_parent_paths(real ? real : named, reference->path);
	struct stat found;

	free(real);
	for (char **path = paths; *path; path++) {
		if (stat(*path, &found) == 0)
			return found.st_dev == parent->st_dev && found.st_ino == parent->st_ino;
		if (!is_absent(-errno))
			return true;
	}
	return false;
}

static bool refuse_unknown(const char *path, const GError *why, GError **error)
{
	return error_set(error, EBUSY, "whether %s still stands on it cannot be told (%s); --force forgets it", path,
			 why->message);
}

/* CHOSEN, struct image_child, NULL: any. */
static bool is_one_of(const GPtrArray *chosen, const uint8_t uuid[IMAGE_UUID_BYTES])
{
	for (guint i = 0; chosen && i < chosen->len; i++)
		if (memcmp(((const struct image_child *)chosen->pdata[i])->uuid, uuid, IMAGE_UUID_BYTES) == 0)
			return true;
	return !chosen;
}

/* Whether the image at PATH, if it is one of CHOSEN, does not stand on PARENT (any more). What is no leaf image has no
 * parent, unless its name or the mark says that it was one. */
static bool is_over(const char *path, const GPtrArray *chosen, const struct stat *parent, GError **error)
{
	g_autoptr(GError) why = NULL;
	struct image_info info;
	bool stands;

	if (!image_read_info(path, IMAGE_FORMAT_LEAF, &info, &why))
		return is_absent(error_to_errno(why)) || refuse_unknown(path, why, error);
	stands = is_one_of(chosen, info.uuid) && info.parent.format != IMAGE_FORMAT_NONE &&
		 leads_to(path, &info.parent, parent);
	image_info_clear(&info);
	return !stands ||
	       error_set(error, EBUSY, "%s still stands on it: remove it, or make a copy of it with leafctl convert",
			 path);
}

static bool may_be_child(const char *path)
{
	return g_str_has_suffix(path, ".leaf") || image_probe(path, NULL) == IMAGE_FORMAT_LEAF;
}

/* None of CHOSEN in DIRECTORY, if it is one, stands on PARENT. */
static bool none_is_in(const char *directory, const GPtrArray *chosen, const struct stat *parent, GError **error)
{
	DIR *list = opendir(directory);
	struct dirent *entry;
	bool good = true;

	if (!list)
		return errno == ENOTDIR || is_absent(-errno) ||
		       error_set_errno(error, errno, "%s: cannot be listed", directory);
	while (good && (errno = 0, entry = readdir(list))) {
		g_autofree char *path = g_build_filename(directory, entry->d_name, NULL);

		if (may_be_child(path))
			good = is_over(path, chosen, parent, error);
	}
	if (good && errno)
		good = error_set_errno(error, errno, "%s: cannot be listed", directory);
	closedir(list);
	return good;
}

/* The directory that PATH is in, and that of those that were sealed there. A leaf that is sealed meanwhile has its
 * other name before it loses its first: so the directories are looked into in this order. */
static void add_places(GPtrArray *places, const char *path)
{
	char *base = chain_directory_of(path);

	if (g_ptr_array_find_with_equal_func(places, base, g_str_equal, NULL)) {
		g_free(base);
		return;
	}
	g_ptr_array_add(places, base);
	g_ptr_array_add(places, g_build_filename(base, SEALED_DIRECTORY, NULL));
}

/* Of a path that was too long the mark has the name alone. */
static char *path_of(const struct image_child *child, const char *directory)
{
	return g_path_is_absolute(child->path) ? g_strdup(child->path) : g_build_filename(directory, child->path, NULL);
}

/* That of CHILD is at its path in the mark or not; PLACES gets where it may be otherwise. */
static bool is_not_there(const struct image_child *child, const char *directory, const struct stat *parent,
			 GPtrArray *places, GError **error)
{
	g_autoptr(GPtrArray) one = g_ptr_array_new();
	g_autofree char *path = path_of(child, directory);

	g_ptr_array_add(one, (void *)child);
	add_places(places, path);
	if (!is_over(path, one, parent, error))
		return false;
	return g_path_is_absolute(child->path) || access(path, F_OK) == 0 ||
	       error_set(error, EBUSY,
			 "where %s is was too long to be remembered, and it is not beside it; --force forgets it",
			 child->path);
}

/* CHILD is a path, or the name that the mark has without a directory. */
static bool is_meant(const struct image_child *child, const char *wanted)
{
	g_autofree char *path = lineage_absolute(wanted), *name = g_path_get_basename(child->path);

	return strcmp(child->path, path) == 0 || strcmp(child->path, wanted) == 0 ||
	       (!strchr(wanted, '/') && strcmp(name, wanted) == 0);
}

/* WANTED NULL: all. Those that are not over keep the rest. */
static GPtrArray *choose(const char *parent, GPtrArray *children, const char *wanted, GError **error)
{
	GPtrArray *chosen = g_ptr_array_new();

	for (guint i = 0; i < children->len; i++)
		if (!wanted || is_meant(children->pdata[i], wanted))
			g_ptr_array_add(chosen, children->pdata[i]);
	if (chosen->len || !wanted)
		return chosen;
	g_ptr_array_unref(chosen);
	error_set(error, ENOENT, "%s: does not remember a child %s; leafctl info shows which it does", parent, wanted);
	return NULL;
}

/* One that was renamed, or sealed, is found beside its old name, or beside the parent. Where all go nothing may stand
 * on PARENT there that the mark does not name either. */
static bool all_are_over(const char *parent, const GPtrArray *chosen, const char *wanted, GError **error)
{
	g_autofree char *real = lineage_absolute(parent), *directory = g_path_get_dirname(real);
	g_autoptr(GPtrArray) places = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GError) why = NULL;
	struct stat st;

	if (stat(parent, &st) < 0)
		return error_set_errno(error, errno, "%s: cannot be looked at", parent);
	add_places(places, real);
	for (guint i = 0; i < chosen->len && !why; i++)
		(void)is_not_there(chosen->pdata[i], directory, &st, places, &why);
	for (guint i = 0; i < places->len && !why; i++)
		(void)none_is_in(places->pdata[i], wanted ? chosen : NULL, &st, &why);
	return !why || error_set(error, -error_to_errno(why), "%s: %s", parent, why->message);
}

static bool remove_chosen(struct image_children *children, const GPtrArray *chosen, const char *wanted, GError **error)
{
	bool good = true;

	for (guint i = 0; i < chosen->len && good && wanted; i++)
		good = image_children_remove(children, ((const struct image_child *)chosen->pdata[i])->uuid, error);
	return wanted ? good : image_children_remove(children, NULL, error);
}

/* Mounts look at a pool when the time of its directory moves. */
static void tell_mounts(const char *parent)
{
	g_autofree char *real = lineage_absolute(parent), *directory = chain_directory_of(real);

	(void)utimensat(AT_FDCWD, directory, NULL, 0);
}

static bool forget(const char *parent, struct image_children *children, const char *child, bool force, GError **error)
{
	const char *mark = image_children_mark(children);
	bool more;
	g_autoptr(GPtrArray) all = image_children_of(mark, &more), chosen = NULL;

	if (!mark)
		return error_set(error, ENOENT, "%s: does not remember any child", parent);
	chosen = choose(parent, all, child, error);
	return chosen && (force || all_are_over(parent, chosen, child, error)) &&
	       remove_chosen(children, chosen, child, error);
}

bool offline_forget_child(const char *parent, enum image_format format, const char *child, bool force, GError **error)
{
	struct image_children *children = NULL;
	bool good;

	format = offline_format_of(parent, format, error);
	if (format != IMAGE_FORMAT_NONE)
		children = image_children_open(parent, format, error);
	good = children && forget(parent, children, child, force, error);
	image_children_close(children);
	if (good)
		tell_mounts(parent);
	return good;
}

/* ---- A parent that has changed ------------------------------------------------------ */

/* As the chain finds it. */
static char *parent_path(const struct chain_link *link)
{
	g_auto(GStrv) paths = chain_parent_paths(link->real, link->info.parent.path);
	bool second = paths[1] && access(paths[0], F_OK) < 0 && is_absent(-errno) && access(paths[1], F_OK) == 0;

	return g_strdup(paths[second]);
}

/* The chain of the parent that LINK names, at PATH; it may be anywhere that LINK's could be. */
static GPtrArray *parent_links(const struct chain_link *link, const char *path, const char *layers, GError **error)
{
	g_autofree char *directory = chain_directory_of(link->real);
	g_autofree char *roots = g_strconcat(layers ? layers : "", ":", directory, NULL);
	g_autoptr(GError) inner = NULL;
	g_autoptr(GPtrArray) links = offline_links(path, link->info.parent.format, roots, &inner);

	if (!inner)
		return g_steal_pointer(&links);
	g_propagate_error(error, g_steal_pointer(&inner));
	return NULL;
}

static bool accept(const struct chain_link *link, const char *layers, char **note, GError **error)
{
	struct lineage lineage = {.parent.format = link->info.parent.format};
	g_autofree char *path = parent_path(link);
	g_autoptr(GPtrArray) links = parent_links(link, path, layers, error);
	bool good = links && offline_owner_parent(path, error) &&
		    lineage_mark(&lineage, path, link->info.uuid, link->real, note, error) &&
		    lineage_describe(&lineage, links->pdata[0], g_strdup(link->info.parent.path), error) &&
		    image_set_parent(link->real, &lineage.parent, error);

	lineage_clear(&lineage);
	return good;
}

bool offline_accept_parent(const char *path, const char *layers, char **note, GError **error)
{
	g_autoptr(GError) why = NULL;
	g_autoptr(GPtrArray) links = offline_links(path, IMAGE_FORMAT_NONE, layers, &why);
	const struct chain_link *link = links ? links->pdata[0] : NULL;

	*note = NULL;
	if (!link) {
		g_propagate_error(error, g_steal_pointer(&why));
		return false;
	}
	if (link->info.parent.format == IMAGE_FORMAT_NONE)
		return error_set(error, EINVAL, "%s: has no parent", path);
	return offline_owner_allows(path, false, error) && accept(link, layers, note, error);
}
