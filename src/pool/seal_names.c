/* What may be sealed, and how it may be called. */
#include "seal_names.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "layer/key.h"
#include "succession.h"
#include "tags.h"

/* ---- What may be sealed ------------------------------------------------------------- */

bool seal_tag_is_allowed(const char *tag, GError **error)
{
	bool good = *tag && tag[0] != '.' && strlen(tag) <= NAME_MAX / 2;

	for (const char *c = tag; *c; c++)
		good &= *c != '/' && *c != '@' && !g_ascii_iscntrl(*c);
	return good ||
	       error_set(error, EINVAL,
			 "\"%s\" cannot name a snapshot: a name has no /, @ or control character, does not begin "
			 "with a dot, and has %d bytes at most",
			 tag, NAME_MAX / 2);
}

bool seal_has_its_name(const struct disk_pool *pool, const struct disk *disk, GError **error)
{
	const struct chain_link *link = disk->leaf->link;
	struct stat st;
	int result = place_look_at(pool_place(pool)->fd, pool_file_name(link->path), &st);

	if (result < 0)
		return error_set_errno(error, -result, "%s: %s cannot be looked at", disk->name, link->path);
	if (link->block_device || !S_ISREG(st.st_mode))
		return error_set(error, EOPNOTSUPP, "%s: its image is no file of the pool, but a device or a link",
				 disk->name);
	return (st.st_ino == link->inode && st.st_dev == link->device) ||
	       error_set(error, ESTALE, "%s: %s is another file than the image that it has open", disk->name,
			 link->path);
}

bool seal_is_allowed(const struct disk_pool *pool, const struct disk *disk, GError **error)
{
	const char *name = disk->name;

	if (pool->options.read_only)
		return error_set(error, EROFS, "%s: the pool is mounted read-only", name);
	if (disk->mode == DISK_MODE_EPHEMERAL)
		return error_set(error, EAGAIN, "%s: has another mode now", name);
	if (disk->spelled)
		return error_set(error, EOPNOTSUPP,
				 "%s: its layers are named by the configuration, which would not name "
				 "a new one",
				 name);
	if (!seal_has_its_name(pool, disk, error))
		return false;
	if (disk->leaf->share == SHARE_DIRTY && !layer_identity_is_own(disk->leaf->link) &&
	    disk->leaf->link->format != IMAGE_FORMAT_LEAF)
		return error_set(
			error, EOPNOTSUPP,
			"%s: its store keeps no extended attributes, so the cache would not know its image again "
			"under another name; mode direct or persistent has none to know",
			name);
	return true;
}

/* ---- Names -------------------------------------------------------------------------- */

/* What the disk stands on has its name in the chain, although somebody may have taken the file away; one name is that
 * of one snapshot, whatever the ending. */
static bool is_in_chain(const struct disk *disk, const char *stem)
{
	for (guint i = 0; i < disk->links->len; i++) {
		const char *path = ((const struct chain_link *)disk->links->pdata[i])->path;
		g_autofree char *other = pool_stem_of_file(pool_file_name(path));

		if (chain_is_sealed_name(path) && strcmp(other, stem) == 0)
			return true;
	}
	return false;
}

char *seal_free_tag(struct disk_pool *pool, const struct disk *disk, const char *what, GError **error)
{
	g_autofree char *stem = pool_stem_of_file(pool_file_name(disk->leaf->link->path));
	g_autoptr(GHashTable) stems = pool_sealed_stems(pool, error);

	for (unsigned number = 1; stems; number++) {
		g_autofree char *tag = g_strdup_printf("%s%u", what, number), *own = g_strconcat(stem, "@", tag, NULL);

		if (!g_hash_table_contains(stems, own) && !is_in_chain(disk, own))
			return g_steal_pointer(&tag);
	}
	return NULL;
}

/* Whatever its ending. */
static bool has_no_snapshot(struct disk_pool *pool, const char *name, GError **error)
{
	g_autofree char *stem = pool_stem_of_file(name);
	g_autoptr(GHashTable) stems = pool_sealed_stems(pool, error);

	return stems && (!g_hash_table_contains(stems, stem) ||
			 error_set(error, EEXIST, "%s/" SEALED_DIRECTORY "/%s: exists; name the snapshot otherwise",
				   disk_pool_path(pool), name));
}

/* ERROR says WHAT where there is one. */
static bool is_free(const struct disk_pool *pool, const char *name, const char *what, GError **error)
{
	struct stat st;
	int result = place_look_at(pool_place(pool)->fd, name, &st);

	if (result == 0)
		return error_set(error, EEXIST, "%s/%s: exists%s", disk_pool_path(pool), name, what);
	return result == -ENOENT ||
	       error_set_errno(error, -result, "%s/%s: cannot be looked at", disk_pool_path(pool), name);
}

/* The directory of the pool in which what is sealed gets a name: on the pool's file system. -1 and ERROR. */
static int open_place(const struct disk_pool *pool, GError **error)
{
	const char *path = disk_pool_path(pool);
	struct stat top, st;
	int fd = succession_open_sealed(pool, true), result = MIN(fd, 0);

	if (result == 0 && (fstat(fd, &st) < 0 || fstat(pool_place(pool)->fd, &top) < 0))
		result = -errno;
	if (result == 0 && st.st_dev == top.st_dev)
		return fd;
	if (fd >= 0)
		close(fd);
	if (result == 0)
		error_set(error, EXDEV,
			  "%s/" SEALED_DIRECTORY
			  ": is on another file system than the pool, and what is sealed only gets "
			  "another name; unmount it there, or move it away",
			  path);
	else if (result == -ENOTDIR || result == -ELOOP)
		error_set(error, -result,
			  "%s/" SEALED_DIRECTORY ": is no directory, but a file or a link, and what is sealed gets "
			  "a name in it; move it away, and a directory is made",
			  path);
	else
		error_set_errno(error, -result, "%s/" SEALED_DIRECTORY ": cannot be made", path);
	return -1;
}

bool seal_names_are_free(struct disk_pool *pool, const struct disk *disk, const struct succession *succession,
			 GError **error)
{
	const char *name = pool_file_name(succession->sealed);
	g_autofree char *stem = pool_stem_of_file(name), *path = NULL;
	int fd;

	path = g_build_filename(disk_pool_path(pool), succession->sealed, NULL);
	if (strlen(name) > NAME_MAX)
		return error_set(error, ENAMETOOLONG, "%s: is longer than a name can be", path);
	if (is_in_chain(disk, stem))
		return error_set(error, EEXIST, "%s: is a layer that %s stands on; name the snapshot otherwise", path,
				 disk->name);
	fd = open_place(pool, error);
	if (fd < 0)
		return false;
	close(fd);
	return has_no_snapshot(pool, name, error) &&
	       (strcmp(succession->from, succession->to) == 0 ||
		is_free(pool, succession->to, ", and is the name that the new leaf would have", error));
}
