/* Where the images of a pool may be, and how they are reached.
 *
 * A link in the pool may name an image elsewhere in it, or in a layers=
 * directory. Where it leads is asked first, by name; what counts is the second
 * look, from the descriptor of the directory that has it, which follows no link
 * at all: a name that has become a link meanwhile is refused there, and asked
 * again.
 *
 * A daemon with root's rights can open what the owner of the pool cannot. A
 * hard link would bring him any file of the same file system, where the kernel
 * lets him make one. So a file of more than one name is only taken where nobody
 * but root and its own owner can put a name. */
#include "layer/roots.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"

#define TRIES 8

struct chain_roots {
	_Atomic unsigned references;
	unsigned count;
	dev_t cache_device; /* of the mount's cache */
	ino_t cache_inode;  /* 0: none that could be an image */
	struct place places[];
};

/* ---- Roots ------------------------------------------------------------------- */

struct chain_roots *chain_roots_new(const char *first, const char *layers, GError **error)
{
	g_auto(GStrv) more = g_strsplit(layers ? layers : "", ":", -1);
	struct chain_roots *roots = g_malloc0(sizeof(*roots) + (1 + g_strv_length(more)) * sizeof(struct place));
	bool good = place_open(&roots->places[roots->count++], first, error);

	roots->references = 1;
	for (char **directory = more; good && *directory; directory++)
		if (**directory)
			good = place_open(&roots->places[roots->count++], *directory, error);
	if (good)
		return roots;
	chain_roots_unref(roots);
	return NULL;
}

struct chain_roots *chain_roots_ref(const struct chain_roots *roots)
{
	struct chain_roots *held = (struct chain_roots *)roots;

	held->references++;
	return held;
}

void chain_roots_unref(struct chain_roots *roots)
{
	if (!roots || --roots->references)
		return;
	for (unsigned i = 0; i < roots->count; i++)
		place_close(&roots->places[i]);
	g_free(roots);
}

void chain_roots_set_cache(struct chain_roots *roots, const struct stat *cache)
{
	roots->cache_device = cache->st_dev;
	roots->cache_inode = cache->st_ino;
}

struct place *chain_roots_pool(const struct chain_roots *roots)
{
	return (struct place *)&roots->places[0];
}

static const struct place *root_of(const struct chain_roots *roots, const char *path, const char **relative)
{
	for (unsigned i = 0; i < roots->count; i++) {
		*relative = place_relative(&roots->places[i], path);
		if (*relative)
			return &roots->places[i];
	}
	return NULL;
}

bool chain_is_inside(const char *path, const struct chain_roots *roots)
{
	const char *relative;

	return root_of(roots, path, &relative);
}

/* ---- Files ------------------------------------------------------------------- */

/* Only root's daemon can open more than whoever linked the file. */
static bool may_be_brought(int directory, const struct stat *st)
{
	struct stat above;

	if (!S_ISREG(st->st_mode) || st->st_nlink < 2 || geteuid() != 0)
		return false;
	return fstat(directory, &above) < 0 || above.st_mode & (S_IWGRP | S_IWOTH) ||
	       (above.st_uid != 0 && above.st_uid != st->st_uid);
}

/* A layers= directory is looked at by whoever needs what is in it, and by nobody else: its
 * store may answer no more. The pool's own is renewed by each look at it. */
static void renew(const struct chain_roots *roots, const struct place *root)
{
	struct stat st;

	if (root != &roots->places[0])
		(void)place_stat((struct place *)root, &st);
}

/* 0; -EPERM: brought from elsewhere; or another -errno. */
static int find_below(struct chain_file *file, const struct place *root, const char *relative)
{
	const char *slash = strrchr(relative, '/');
	g_autofree char *above = slash ? g_strndup(relative, (gsize)(slash - relative)) : NULL;
	int directory = slash ? place_open_directory(root, above) : root->fd;

	file->fd = directory < 0 ? directory : place_find_at(directory, slash ? slash + 1 : relative, &file->st);
	if (file->fd >= 0 && may_be_brought(directory, &file->st)) {
		close(file->fd);
		file->fd = -EPERM;
	}
	if (slash && directory >= 0)
		close(directory);
	return MIN(file->fd, 0);
}

/* A name right in the pool, which needs no second look where it is no link. */
static const char *plain_name(const struct chain_roots *roots, const char *path)
{
	const char *name = place_relative(&roots->places[0], path);

	return name && !strchr(name, '/') && strcmp(name, "..") != 0 && strcmp(name, ".") != 0 ? name : NULL;
}

static int find_by_name(struct chain_file *file, const char *path, const struct chain_roots *roots)
{
	char *real = realpath(path, NULL);
	const struct place *root;
	const char *relative;

	if (!real)
		return -errno;
	file->real = g_strdup(real);
	free(real);
	root = root_of(roots, file->real, &relative);
	file->in_pool = root == &roots->places[0];
	if (!root)
		return -EXDEV;
	renew(roots, root);
	return find_below(file, root, relative);
}

/* 0; -EXDEV: outside; or another -errno. REAL is set when a name led to it. */
static int find_once(struct chain_file *file, const char *path, const struct chain_roots *roots)
{
	const char *name = plain_name(roots, path);
	int result = name ? find_below(file, &roots->places[0], name) : -ELOOP;

	g_clear_pointer(&file->real, g_free);
	if (result == -ELOOP)
		return find_by_name(file, path, roots);
	file->real = g_strdup(path);
	file->in_pool = true;
	return result;
}

/* What a link leads to may go and come back between the two looks. */
static bool is_worth_another(const struct chain_file *file, const char *path, int result)
{
	bool by_name = file->real && strcmp(file->real, path) != 0;

	return result == -ELOOP || (by_name && (result == -ENOENT || result == -ENOTDIR));
}

static int find(struct chain_file *file, const char *path, const struct chain_roots *roots)
{
	int result = find_once(file, path, roots);

	for (unsigned i = 1; i < TRIES && is_worth_another(file, path, result); i++)
		result = find_once(file, path, roots);
	if (result == 0 && roots->cache_inode && file->st.st_ino == roots->cache_inode &&
	    file->st.st_dev == roots->cache_device)
		return -ETXTBSY;
	return result;
}

static bool refuse(const struct chain_file *file, int result, const char *what, const char *path,
		   const struct chain_roots *roots, GError **error)
{
	if (result == -EXDEV)
		return error_set(error, EPERM,
				 "%s%s: leads to %s, outside the pool %s; allow its directory with -o layers=DIR "
				 "(leafctl: --layers)",
				 what, path, file->real, roots->places[0].path);
	if (result == -EPERM)
		return error_set(error, EPERM,
				 "%s%s: has another name elsewhere (a hard link), and others than its owner can write "
				 "to its directory; only a copy of it is taken",
				 what, path);
	if (result == -ETXTBSY)
		return error_set(error, ETXTBSY, "%s%s: is the cache of this mount, and no image", what, path);
	if (*what && (result == -ENOENT || result == -ENOTDIR))
		return error_set(
			error, -result,
			"%s%s: cannot be found: %s; bring it back to that path, or make a link there that leads "
			"to it",
			what, path, g_strerror(-result));
	return error_set_errno(error, -result, "%s%s: cannot be found", what, path);
}

bool chain_file_find(struct chain_file *file, const char *what, const char *path, const struct chain_roots *roots,
		     GError **error)
{
	int result;

	*file = (struct chain_file){.fd = -1};
	result = find(file, path, roots);
	if (result == 0)
		return true;
	refuse(file, result, what, path, roots, error);
	chain_file_clear(file);
	return false;
}

int chain_file_stat(const char *path, const struct chain_roots *roots, struct stat *st)
{
	const char *relative;
	const struct place *root = root_of(roots, path, &relative);

	if (!root)
		return -EXDEV;
	renew(roots, root);
	return fstatat(root->fd, relative, st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

void chain_file_clear(struct chain_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	g_clear_pointer(&file->real, g_free);
	file->fd = -1;
}
