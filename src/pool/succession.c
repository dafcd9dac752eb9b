/* The files of a new leaf that takes the place of an image. */
#include "succession.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/fault.h"
#include "owner/record.h"

/* ---- Directories ------------------------------------------------------------------ */

static int pool_fd(const struct disk_pool *pool)
{
	return pool_place(pool)->fd;
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static int sync_and_close(int fd)
{
	int result = fd < 0 ? fd : fsync(fd) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return result;
}

int succession_sync(struct disk_pool *pool)
{
	int sealed = sync_and_close(succession_open_sealed(pool, false));
	int result = fsync(pool_fd(pool)) < 0 ? -errno : 0;

	return result < 0 || sealed == -ENOENT ? result : sealed;
}

/* ---- Names ------------------------------------------------------------------------ */

/* An image of no format, or the rest of one. */
static bool is_no_leaf(const GError *error)
{
	int result = error_to_errno(error);

	return result == -EINVAL || result == -ENODATA || result == -EOPNOTSUPP;
}

enum answer succession_is_leaf(struct disk_pool *pool, const struct succession *succession, const char *name,
			       GError **error)
{
	g_autofree char *path = g_build_filename(pool_place(pool)->path, name, NULL);
	g_autoptr(GError) inner = NULL;
	struct image_info info = {0};
	struct stat st;
	int fd = place_find_at(pool_fd(pool), name, &st);
	enum answer is = answer_of_look(fd == -ELOOP ? -ENOENT : MIN(fd, 0));

	if (is == ANSWER_UNKNOWN)
		error_set_errno(error, -fd, "%s: cannot be looked at", path);
	if (is == ANSWER_YES && !S_ISREG(st.st_mode))
		is = ANSWER_NO;
	else if (is == ANSWER_YES && !image_read_info_fd(fd, path, IMAGE_FORMAT_LEAF, &info, &inner))
		is = is_no_leaf(inner) ? ANSWER_NO : ANSWER_UNKNOWN;
	else if (is == ANSWER_YES && memcmp(info.uuid, succession->uuid, IMAGE_UUID_BYTES) != 0)
		is = ANSWER_NO;
	if (is == ANSWER_UNKNOWN && inner)
		g_propagate_error(error, g_steal_pointer(&inner));
	image_info_clear(&info);
	if (fd >= 0)
		close(fd);
	return is;
}

/* *ST of the image's other name. */
static int look_at_sealed(const struct disk_pool *pool, const struct succession *succession, struct stat *st)
{
	int fd = succession_open_sealed(pool, false);
	int result = fd < 0 ? fd : place_look_at(fd, last_part(succession->sealed), st);

	if (fd >= 0)
		close(fd);
	return result;
}

enum answer succession_is_linked(const struct disk_pool *pool, const struct succession *succession)
{
	struct stat a, b;
	enum answer one = answer_of_look(look_at_sealed(pool, succession, &a));
	enum answer other = answer_of_look(place_look_at(pool_fd(pool), succession->from, &b));

	if (one == ANSWER_NO || other == ANSWER_NO)
		return ANSWER_NO;
	if (one == ANSWER_UNKNOWN || other == ANSWER_UNKNOWN)
		return ANSWER_UNKNOWN;
	return a.st_ino == b.st_ino && a.st_dev == b.st_dev ? ANSWER_YES : ANSWER_NO;
}

/* Whatever a store has against a link, it may rename. */
bool succession_link(struct disk_pool *pool, struct succession *succession, GError **error)
{
	const char *name = last_part(succession->sealed);
	int fd = succession_open_sealed(pool, true),
	    result = fd < 0 ? fd : fault_hit("snapshot.link", succession->from);
	struct stat st;

	if (result == 0) {
		result = place_look_at(fd, name, &st);
		result = result == 0 ? -EEXIST : result == -ENOENT ? 0 : result;
	}
	if (result == 0)
		succession->linked = place_link(pool_fd(pool), succession->from, fd, name) == 0;
	if (result == 0 && fsync(fd) < 0)
		result = -errno;
	if (fd >= 0)
		close(fd);
	return result == 0 ||
	       error_set_errno(error, -result, "%s/%s: cannot be made", pool_place(pool)->path, succession->sealed);
}

static int rename_between(int from, const char *name, int to, const char *new_name)
{
	int fault = fault_hit("place.rename", new_name);

	if (fault)
		return fault;
	return renameat(from, name, to, new_name) < 0 ? -errno : 0;
}

/* FROM under its other name alone. */
static int move_away(struct disk_pool *pool, const struct succession *succession)
{
	int fd = succession_open_sealed(pool, true);
	int result = fd < 0 ? fd : rename_between(pool_fd(pool), succession->from, fd, last_part(succession->sealed));

	if (fd >= 0)
		close(fd);
	return result;
}

/* FROM, where that is another, is gone. */
static int put_in_place(struct disk_pool *pool, const struct succession *succession)
{
	int fd = pool_fd(pool), result;

	if (strcmp(succession->from, succession->to) == 0)
		return rename_between(fd, succession->staged, fd, succession->to);
	result = place_rename_new(fd, succession->staged, succession->to);
	return result == 0 ? place_remove(fd, succession->from) : result;
}

bool succession_put_in_place(struct disk_pool *pool, const struct succession *succession, GError **error)
{
	int result = put_in_place(pool, succession);

	return result == 0 ||
	       error_set_errno(error, -result, "%s/%s: cannot be put in place", pool_place(pool)->path, succession->to);
}

bool succession_exchange(struct disk_pool *pool, struct succession *succession, GError **error)
{
	int result = fault_hit("snapshot.exchange", succession->from);

	succession->exchanged = true;
	if (result == 0 && !succession->linked)
		result = move_away(pool, succession);
	if (result == 0)
		return succession_put_in_place(pool, succession, error);
	return error_set_errno(error, -result, "%s/%s: cannot be put in place", pool_place(pool)->path, succession->to);
}

bool succession_show_forks(struct disk_pool *pool, struct succession *succession, GError **error)
{
	int fd = pool_fd(pool), failed = 0;
	const char *first = NULL;
	g_autoptr(GString) made = g_string_new(NULL);

	for (guint i = 0; succession->forks && i < succession->forks->len; i++) {
		const struct succession_fork *fork = succession->forks->pdata[i];
		int result = fault_hit("snapshot.fork", fork->to);

		if (result == 0)
			result = place_rename_new(fd, fork->staged, fork->to);
		if (result == 0) {
			g_string_append_printf(made, "%s%s", made->len ? ", " : "; made are: ", fork->to);
			continue;
		}
		(void)place_remove(fd, fork->staged);
		failed = first ? failed : result;
		first = first ? first : fork->to;
	}
	return !first || error_set(error, -failed, "%s/%s: cannot be made: %s%s", pool_place(pool)->path, first,
				   g_strerror(-failed), made->str);
}

/* ---- As it was before --------------------------------------------------------------- */

static bool remove_staged(struct disk_pool *pool, const char *name, GError **error)
{
	int result = place_remove(pool_fd(pool), name);

	return result == 0 || error_set_errno(error, -result, "%s/%s: cannot be removed", pool_place(pool)->path, name);
}

bool succession_remove_forks(struct disk_pool *pool, const struct succession *succession, GError **error)
{
	for (guint i = 0; succession->forks && i < succession->forks->len; i++)
		if (!remove_staged(pool, ((struct succession_fork *)succession->forks->pdata[i])->staged, error))
			return false;
	return true;
}

/* The new leaf is under its hidden name, if it is anywhere. */
static bool take_out(struct disk_pool *pool, const struct succession *succession, GError **error)
{
	enum answer there = succession_is_leaf(pool, succession, succession->to, error);
	int fd = pool_fd(pool), result = 0;

	if (there == ANSWER_YES)
		result = rename_between(fd, succession->to, fd, succession->staged);
	return there != ANSWER_UNKNOWN && (result == 0 || error_set_errno(error, -result, "%s/%s: cannot be renamed",
									  pool_place(pool)->path, succession->to));
}

/* Its other name is the only one that the image has. What somebody has put at its own meanwhile stays. */
static int bring_back(struct disk_pool *pool, const struct succession *succession)
{
	const char *name = last_part(succession->sealed);
	int fd = succession_open_sealed(pool, false), result = MIN(fd, 0);

	if (result == 0)
		result = place_link(fd, name, pool_fd(pool), succession->from);
	if (fd >= 0 && result < 0 && result != -EEXIST)
		result = rename_between(fd, name, pool_fd(pool), succession->from);
	if (result == 0 && fsync(pool_fd(pool)) < 0)
		result = -errno;
	if (fd >= 0)
		close(fd);
	return result;
}

/* Where the new leaf is nowhere, nothing of this is left to be taken back: that image has its name from another. */
static bool has_moved(struct disk_pool *pool, const struct succession *succession, int *result)
{
	struct stat st;
	enum answer from = answer_of_look(*result = place_look_at(pool_fd(pool), succession->from, &st));
	enum answer staged = ANSWER_NO, sealed = ANSWER_NO;

	if (from == ANSWER_NO)
		staged = answer_of_look(*result = place_look_at(pool_fd(pool), succession->staged, &st));
	if (staged == ANSWER_YES)
		sealed = answer_of_look(*result = look_at_sealed(pool, succession, &st));
	if (*result == -ENOENT)
		*result = 0;
	return sealed == ANSWER_YES && st.st_nlink == 1;
}

static bool give_back(struct disk_pool *pool, const struct succession *succession, GError **error)
{
	int result;

	if (has_moved(pool, succession, &result))
		result = bring_back(pool, succession);
	return result == 0 ||
	       error_set_errno(error, -result, "%s/%s: cannot be put back", pool_place(pool)->path, succession->from);
}

/* A name of FROM, or none: anything else that is there is another's. */
static bool remove_sealed(struct disk_pool *pool, const struct succession *succession, GError **error)
{
	g_autofree char *directory = g_build_filename(pool_place(pool)->path, SEALED_DIRECTORY, NULL);
	const char *name = last_part(succession->sealed);
	struct stat st;
	enum answer linked = succession_is_linked(pool, succession);
	int fd = succession_open_sealed(pool, false), result = 0;
	enum answer there = answer_of_look(fd < 0 ? fd : place_look_at(fd, name, &st));

	if (linked == ANSWER_YES) {
		result = place_remove(fd, name);
		there = answer_of_look(result < 0 ? result : -ENOENT);
	}
	if (fd >= 0)
		close(fd);
	if (linked == ANSWER_UNKNOWN || there == ANSWER_UNKNOWN)
		return error_set_errno(error, result < 0 ? -result : EIO, "%s/%s: cannot be removed",
				       pool_place(pool)->path, succession->sealed);
	return there == ANSWER_YES || owner_remove(directory, name, error);
}

/* That of the new leaf, at a name that no image has. What is not ours is of another. */
static bool remove_record(struct disk_pool *pool, const struct succession *succession, GError **error)
{
	const char *path = pool_place(pool)->path;
	g_autoptr(GError) inner = NULL;
	struct stat st;
	int result;

	if (strcmp(succession->from, succession->to) == 0)
		return true;
	result = place_look_at(pool_fd(pool), succession->to, &st);
	if (answer_of_look(result) == ANSWER_UNKNOWN)
		return error_set_errno(error, -result, "%s/%s: cannot be looked at", path, succession->to);
	if (result == 0)
		return true;
	if (!owner_allows(path, succession->to, &pool->owner, false, &inner)) {
		if (error_to_errno(inner) == -EBUSY)
			return true;
		g_propagate_error(error, g_steal_pointer(&inner));
		return false;
	}
	return owner_remove(path, succession->to, error);
}

bool succession_undo(struct disk_pool *pool, struct succession *succession, GError **error)
{
	bool sealed = !succession->beside;
	int result;

	if (sealed && succession->exchanged &&
	    (!take_out(pool, succession, error) || !give_back(pool, succession, error)))
		return false;
	succession->exchanged = false;
	if ((sealed && (!remove_sealed(pool, succession, error) || !remove_record(pool, succession, error))) ||
	    !remove_staged(pool, succession->staged, error) || !succession_remove_forks(pool, succession, error))
		return false;
	result = succession_sync(pool);
	if (result < 0)
		return error_set_errno(error, -result, "%s: cannot be flushed", pool_place(pool)->path);
	succession_remove_mark(succession);
	return true;
}
