/* What is over between parents and children, without a mount: children that are gone, and
 * parents that have changed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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

static bool leads_to(const char *child, const struct image_parent *reference, const struct stat *parent,
		     struct stat *found)
{
	g_autofree char *real = lineage_absolute(child), *directory = g_path_get_dirname(real);
	g_autofree char *path = g_path_is_absolute(reference->path)
					? g_strdup(reference->path)
					: g_build_filename(directory, reference->path, NULL);

	if (stat(path, found) < 0)
		return error_class_of(STORE_OPEN, -errno) != ERROR_ABSENT;
	return found->st_dev == parent->st_dev && found->st_ino == parent->st_ino;
}

static bool refuse_unknown(const char *path, const GError *why, GError **error)
{
	return error_set(error, EBUSY, "whether %s still stands on it cannot be told (%s); --force forgets it", path,
			 why->message);
}

/* Whether the image at PATH does not stand on PARENT (any more). UUID: that of the child that is
 * meant; NULL: any. What is no leaf image has no parent, unless its name or the mark says that it
 * was one. */
static bool is_over(const char *path, const uint8_t *uuid, const struct stat *parent, GError **error)
{
	g_autoptr(GError) why = NULL;
	struct image_info info;
	struct stat found;
	bool stands;

	if (!image_read_info(path, IMAGE_FORMAT_LEAF, &info, &why))
		return error_class_of(STORE_OPEN, error_to_errno(why)) == ERROR_ABSENT ||
		       refuse_unknown(path, why, error);
	stands = (!uuid || memcmp(uuid, info.uuid, IMAGE_UUID_BYTES) == 0) && info.parent.format != IMAGE_FORMAT_NONE &&
		 leads_to(path, &info.parent, parent, &found);
	image_info_clear(&info);
	return !stands ||
	       error_set(error, EBUSY, "%s still stands on it: remove it, or make a copy of it with leafctl convert",
			 path);
}

static bool may_be_child(const char *path)
{
	return g_str_has_suffix(path, ".leaf") || image_probe(path, NULL) == IMAGE_FORMAT_LEAF;
}

/* No image in DIRECTORY stands on PARENT. UUID: as in is_over(). */
static bool none_is_in(const char *directory, const uint8_t *uuid, const struct stat *parent, GError **error)
{
	DIR *list = opendir(directory);
	struct dirent *entry;
	bool good = true;

	if (!list)
		return error_set_errno(error, errno, "%s: cannot be listed", directory);
	while (good && (errno = 0, entry = readdir(list))) {
		g_autofree char *path = g_build_filename(directory, entry->d_name, NULL);

		if (may_be_child(path))
			good = is_over(path, uuid, parent, error);
	}
	if (good && errno)
		good = error_set_errno(error, errno, "%s: cannot be listed", directory);
	closedir(list);
	return good;
}

/* One that was renamed is found beside its old name, or beside the parent in DIRECTORY. Of a
 * path that was too long the mark has the name alone. */
static bool is_gone(const struct image_child *child, const char *directory, const struct stat *parent, GError **error)
{
	bool whole = g_path_is_absolute(child->path);
	g_autofree char *path = whole ? g_strdup(child->path) : g_build_filename(directory, child->path, NULL);
	g_autofree char *old = g_path_get_dirname(path);

	if (!is_over(path, child->uuid, parent, error))
		return false;
	if (!whole && access(path, F_OK) < 0)
		return error_set(error, EBUSY,
				 "where %s is was too long to be remembered, and it is not beside it; --force "
				 "forgets it",
				 child->path);
	return (access(old, F_OK) < 0 || none_is_in(old, child->uuid, parent, error)) &&
	       none_is_in(directory, child->uuid, parent, error);
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

static bool all_are_over(const char *parent, const GPtrArray *chosen, const char *wanted, GError **error)
{
	g_autofree char *real = lineage_absolute(parent), *directory = g_path_get_dirname(real);
	g_autoptr(GError) why = NULL;
	struct stat st;

	if (stat(parent, &st) < 0)
		return error_set_errno(error, errno, "%s: cannot be looked at", parent);
	for (guint i = 0; i < chosen->len && !why; i++)
		(void)is_gone(chosen->pdata[i], directory, &st, &why);
	if (!why && !wanted)
		(void)none_is_in(directory, NULL, &st, &why);
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
	g_autofree char *real = lineage_absolute(parent), *directory = g_path_get_dirname(real);

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

/* The chain of the parent that LINK names; it may be anywhere that LINK's could be. */
static GPtrArray *parent_links(const struct chain_link *link, const char *layers, char **path, GError **error)
{
	const struct image_parent *reference = &link->info.parent;
	g_autofree char *directory = g_path_get_dirname(link->real);
	g_autofree char *roots = g_strconcat(layers ? layers : "", ":", directory, NULL);
	g_autoptr(GError) inner = NULL;
	g_autoptr(GPtrArray) links = NULL;

	*path = g_path_is_absolute(reference->path) ? g_strdup(reference->path)
						    : g_build_filename(directory, reference->path, NULL);
	links = offline_links(*path, reference->format, roots, &inner);
	if (!inner)
		return g_steal_pointer(&links);
	g_propagate_error(error, g_steal_pointer(&inner));
	return NULL;
}

static bool accept(const struct chain_link *link, const char *layers, char **note, GError **error)
{
	struct lineage lineage = {.parent.format = link->info.parent.format};
	g_autofree char *path = NULL;
	g_autoptr(GPtrArray) links = parent_links(link, layers, &path, error);
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
