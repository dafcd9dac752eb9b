/* Names that are made, changed and removed through a pool.
 *
 * Other programs' locks are waited for first. Then, with nobody else at the
 * directory: whether all is as it was, the change, its flush, and a look at the
 * files that it was about. */
#include "pool/change.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/error.h"
#include "core/verdict.h"
#include "disk/pause.h"
#include "disk/saved.h"
#include "image/children.h"
#include "internal.h"
#include "pool/snapshot.h"
#include "refresh.h"
#include "succession_failed.h"

/* "x.img" -> "x"; ERROR when the name cannot be a disk's. EPERM, as of EINVAL mv(1) makes a story
 * of directories. */
char *pool_stem_of(const char *name, GError **error)
{
	if (strlen(name) > NAME_MAX) {
		error_set(error, ENAMETOOLONG, "%s: a disk's name has %d bytes at most", name, NAME_MAX);
		return NULL;
	}
	if (g_str_has_suffix(name, ".img") && strlen(name) > 4 && name[0] != '.' && !strchr(name, '/'))
		return g_strndup(name, strlen(name) - 4);
	error_set(error, EPERM, "%s: a disk's name ends in .img and does not begin with a dot", name);
	return NULL;
}

static int sync_directory(struct disk_pool *pool)
{
	return fsync(pool_place(pool)->fd) < 0 ? -errno : 0;
}

static bool name_is_free_locked(struct disk_pool *pool, const char *name, GError **error)
{
	lock_assert_mine(&pool->lock);
	if (g_hash_table_contains(pool->disks, name))
		return error_set(error, EEXIST, "%s: exists", name);
	if (scan_is_configured(&pool->options, name))
		return error_set(error, EEXIST,
				 "%s: is the name of a disk of the configuration, which is not shown now", name);
	return !names_is_given(pool->names, name) ||
	       error_set(error, EEXIST, "%s: is the name of an image that is not shown now", name);
}

/* ---- Creating ----------------------------------------------------------------- */

bool pool_name_is_free(struct disk_pool *pool, const char *name, GError **error)
{
	LOCK_GUARD(&pool->lock);
	return name_is_free_locked(pool, name, error);
}

bool pool_reserve_name(struct disk_pool *pool, const char *name, GError **error)
{
	LOCK_GUARD(&pool->lock);
	if (!name_is_free_locked(pool, name, error))
		return false;
	names_reserve(pool->names, name);
	return true;
}

static struct disk *show_created(struct disk_pool *pool, const char *name, const char *path, GError **error)
{
	const char *const changed[] = {pool_file_name(path), NULL};
	struct scan_result *result = pool_look_at_locked(pool, changed);
	struct disk *disk;

	if (result)
		pool_show_locked(pool, result);
	disk = result ? disk_pool_find(pool, name) : NULL;
	if (disk)
		return disk;
	(void)unlinkat(pool_place(pool)->fd, pool_file_name(path), 0);
	if (result)
		error_set(error, EINVAL, "%s: would not be among the disks of this mount", path);
	else
		error_set(error, EMFILE, "%s: cannot be looked at", path);
	return NULL;
}

/* One that has the lock itself is not waited for. */
int pool_join_those_at_work(int directory)
{
	int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0)
		(void)flock(fd, LOCK_SH | LOCK_NB);
	return fd;
}

static int make_staged(struct disk_pool *pool, const char *name, const char *path)
{
	g_autofree char *staged = g_build_filename(disk_pool_path(pool), name, NULL);
	struct image_create_options options = {0};
	int directory = pool_place(pool)->fd, result;
	g_autoptr(GError) error = NULL;

	if (!image_create_in(directory, staged, IMAGE_FORMAT_LEAF, &options, &error))
		return error_to_errno(error);
	result = place_rename_new(directory, name, pool_file_name(path));
	if (result < 0)
		(void)unlinkat(directory, name, 0);
	return result;
}

/* A crash, or a store that takes neither the image nor its removal, leaves a file that no pool
 * shows: the image has its name once it is whole. */
static int make_image(struct disk_pool *pool, const char *path)
{
	g_autofree char *name = names_staged();
	int at_work = pool_join_those_at_work(pool_place(pool)->fd);
	int result = make_staged(pool, name, path);

	if (at_work >= 0)
		close(at_work);
	return result;
}

static struct disk *create_locked(struct disk_pool *pool, const char *name, const char *stem, GError **error)
{
	g_autofree char *path = g_strconcat(disk_pool_path(pool), "/", stem, ".leaf", NULL);
	int result;

	lock_assert_mine(&pool->scanning);
	if (!pool_name_is_free(pool, name, error))
		return NULL;
	result = make_image(pool, path);
	if (result < 0) {
		error_set_errno(error, -result, "%s: cannot be created", path);
		return NULL;
	}
	return show_created(pool, name, path, error);
}

struct disk *disk_pool_create(struct disk_pool *pool, const char *name, GError **error)
{
	g_autofree char *stem = pool_stem_of(name, error);
	struct disk *disk;

	if (!stem)
		return NULL;
	lock_take(&pool->scanning);
	disk = create_locked(pool, name, stem, error);
	lock_let_go(&pool->scanning);
	if (disk)
		sync_directory(pool);
	return disk;
}

/* ---- What may be moved or removed --------------------------------------------- */

/* A disk of this mount that stands on DISK's image and is no image itself; NULL: none. */
static const struct disk *find_fork_locked(struct disk_pool *pool, const struct disk *disk)
{
	GHashTableIter iter;
	gpointer value;

	lock_assert_mine(&pool->lock);
	g_hash_table_iter_init(&iter, pool->disks);
	while (g_hash_table_iter_next(&iter, NULL, &value)) {
		const struct disk *fork = value;

		if (fork->forked && strcmp(fork->path, disk->path) == 0)
			return fork;
	}
	return NULL;
}

static bool has_no_fork_locked(struct disk_pool *pool, const struct disk *disk, GError **error)
{
	const struct disk *fork = find_fork_locked(pool, disk);

	lock_assert_mine(&pool->lock);
	if (!fork)
		return true;
	return error_set(error, EBUSY, "%s: %s is a fork of it", disk->name, fork->name);
}

bool disk_pool_has_no_fork(struct disk_pool *pool, const struct disk *disk, GError **error)
{
	LOCK_GUARD(&pool->lock);
	return disk->forked || has_no_fork_locked(pool, disk, error);
}

/* A disk that may be moved or removed: its own file in the pool, not open,
 * nobody's parent. */
static struct disk *find_free_locked(struct disk_pool *pool, const char *name, GError **error)
{
	struct disk *disk = g_hash_table_lookup(pool->disks, name);

	lock_assert_mine(&pool->lock);
	if (!disk)
		error_set(error, ENOENT, "%s: is not a disk of this pool", name);
	else if (pool->options.read_only)
		error_set(error, EROFS, "%s: the pool is mounted read-only", name);
	else if (disk->forked)
		error_set(error, EBUSY, "%s: is a fork that only this mount has", name);
	else if (disk->spelled)
		error_set(error, EBUSY, "%s: is made by the configuration", name);
	else if (disk->opens)
		error_set(error, EBUSY, "%s: is open", name);
	else if (disk->open)
		error_set(error, EBUSY, "%s: has changes in the cache that are being written back", name);
	else if (disk->parent)
		error_set(error, EBUSY, "%s: another image depends on it", name);
	else if (!disk->writable)
		error_set(error, EBUSY, "%s: is a link to an image outside the pool", name);
	else if (has_no_fork_locked(pool, disk, error) && !disk_is_paused(disk, error))
		return disk;
	return NULL;
}

/* What an ephemeral disk was given belongs to its name: the disk under the new one
 * would be as its image is. */
static struct disk *find_movable_locked(struct disk_pool *pool, const char *name, GError **error)
{
	struct disk *disk = find_free_locked(pool, name, error);

	lock_assert_mine(&pool->lock);
	if (!disk || disk->mode != DISK_MODE_EPHEMERAL || !disk_has_own(disk))
		return disk;
	error_set(error, EBUSY, "%s: has changes or snapshots that only this mount has, and would lose them", name);
	return NULL;
}

static char *renamed_path(struct disk_pool *pool, struct disk *disk, const char *stem)
{
	const char *suffix = strrchr(strrchr(disk_image_path(disk), '/'), '.');

	return g_strconcat(disk_pool_path(pool), "/", stem, suffix ? suffix : "", NULL);
}

/* A target that is no known, free disk with this very file is left as it is:
 * what has the file's name and is not shown is somebody's all the same. *REPLACED
 * is the disk that gives way, or NULL. */
static bool target_gives_way_locked(struct disk_pool *pool, const char *name, const char *file, bool replace,
				    struct disk **replaced, GError **error)
{
	lock_assert_mine(&pool->lock);
	*replaced = g_hash_table_lookup(pool->disks, name);
	if (!*replaced)
		return name_is_free_locked(pool, name, error);
	if (!find_free_locked(pool, name, error))
		return false;
	if (replace && strcmp(disk_image_path(*replaced), file) == 0)
		return true;
	return error_set(error, EEXIST, "%s: exists; remove it first", name);
}

/* Asked under the image's lock: its format is another one than that of the lock. */
static bool has_no_children(const struct chain_link *leaf, const struct chain_file *file, GError **error)
{
	g_autoptr(GError) inner = NULL;
	struct image_info info;

	if (!image_read_info_fd(file->fd, leaf->path, leaf->format, &info, error))
		return false;
	if (info.children)
		image_children_refuse(leaf->path, info.children, &inner);
	image_info_clear(&info);
	return !inner || error_set(error, EBUSY, "%s", inner->message);
}

/* The image of a disk that is to be moved or removed, locked against other
 * programs, and checked to be what its name has now, and nobody's parent. */
static bool hold_image(struct disk *disk, struct image **image, GError **error)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	const struct chain_link *leaf = links->pdata[0];
	g_autoptr(GError) inner = NULL;
	struct chain_file file;

	*image = NULL;
	if (!chain_link_find(leaf, &file, error))
		return false;
	if (!leaf->outside)
		*image = image_open_fd(file.fd, leaf->path, IMAGE_FORMAT_RAW, IMAGE_WRITABLE | IMAGE_LOCK_ONLY, 0,
				       &inner);
	if (leaf->outside || (inner && error_class_of(STORE_OPEN, error_to_errno(inner)) == ERROR_READ_ONLY)) {
		g_clear_error(&inner);
		*image = image_open_fd(file.fd, leaf->path, IMAGE_FORMAT_RAW, 0, 0, &inner);
	}
	if (*image && !leaf->outside && !has_no_children(leaf, &file, &inner)) {
		(void)image_close(*image);
		*image = NULL;
	}
	chain_file_clear(&file);
	if (inner)
		g_propagate_error(error, g_steal_pointer(&inner));
	return *image;
}

static bool move_file(struct disk_pool *pool, const char *old, const char *file, bool replace, GError **error)
{
	const char *from = pool_file_name(old), *to = pool_file_name(file);
	int directory = pool_place(pool)->fd, result;

	if (replace)
		result = renameat(directory, from, directory, to) < 0 ? -errno : 0;
	else
		result = place_rename_new(directory, from, to);
	return result == 0 || error_set_errno(error, -result, "%s: cannot be renamed to %s", old, file);
}

static bool move_owned(struct disk_pool *pool, const char *old, const char *file, bool replace, GError **error)
{
	struct owner_move move;
	bool good = owner_move_begin(&move, &pool->owner, old, file, error);
	bool moved = good && move_file(pool, old, file, replace, error);

	if (good)
		owner_move_end(&move, moved);
	return moved;
}

static bool unlink_file(struct disk_pool *pool, const char *path, GError **error)
{
	return unlinkat(pool_place(pool)->fd, pool_file_name(path), 0) == 0 ||
	       error_set_errno(error, errno, "%s: cannot be removed", path);
}

static bool remove_owned(struct disk_pool *pool, const char *path, GError **error)
{
	struct owner_move move;
	bool good = owner_move_begin(&move, &pool->owner, path, NULL, error);
	bool removed = good && unlink_file(pool, path, error);

	if (good)
		owner_move_end(&move, removed);
	return removed;
}

/* Whether the file right in the pool is still the one that is held; a link to it
 * is moved or removed alone. */
static bool is_held(struct disk_pool *pool, struct disk *disk, const struct image *image, GError **error)
{
	struct stat st;

	if (fstatat(pool_place(pool)->fd, pool_file_name(disk_image_path(disk)), &st, AT_SYMLINK_NOFOLLOW) < 0)
		return error_set_errno(error, errno, "%s: cannot be found", disk_image_path(disk));
	return S_ISLNK(st.st_mode) || (st.st_ino == image->inode && st.st_dev == image->device) ||
	       error_set(error, EBUSY, "%s: was replaced meanwhile", disk_image_path(disk));
}

/* ---- Changes ------------------------------------------------------------------ */

struct disk_pool_change {
	struct disk_pool *pool;
	struct disk *disk;
	struct disk *replaced; /* NULL: nothing is */
	struct image *image;
	struct image *replaced_image;
	char *new_name; /* NULL: it is removed */
	char *file;	/* that name's */
	struct scan_result *result;
	int flushed; /* 0 or -errno */
};

/* Without references and images. */
static bool plan_locked(struct disk_pool *pool, const char *name, const char *new_name, bool replace,
			struct disk_pool_change *change, GError **error)
{
	g_autofree char *stem = new_name ? pool_stem_of(new_name, error) : NULL;

	lock_assert_mine(&pool->lock);
	*change = (struct disk_pool_change){.pool = pool};
	if (!new_name)
		return (change->disk = find_free_locked(pool, name, error));
	change->disk = stem ? find_movable_locked(pool, name, error) : NULL;
	if (!change->disk)
		return false;
	change->file = renamed_path(pool, change->disk, stem);
	return target_gives_way_locked(pool, new_name, change->file, replace, &change->replaced, error);
}

/* Clean and without users it is about to be closed by the migrator: that is not to
 * be in the way. */
static void close_unused(struct disk_pool *pool, const char *name)
{
	struct disk *disk = name ? disk_pool_find(pool, name) : NULL;

	if (!disk)
		return;
	if (disk->open && disk->opens == 0) {
		LOCK_GUARD(&disk->open_lock);
		disk_close_unused(disk);
	}
	disk_unref(disk);
}

static bool plan(struct disk_pool *pool, const char *name, const char *new_name, bool replace,
		 struct disk_pool_change *change, GError **error)
{
	bool good;

	close_unused(pool, name);
	close_unused(pool, new_name);
	lock_take(&pool->lock);
	good = plan_locked(pool, name, new_name, replace, change, error);
	if (change->disk)
		disk_ref(change->disk);
	if (change->replaced)
		disk_ref(change->replaced);
	lock_let_go(&pool->lock);
	change->new_name = g_strdup(new_name);
	return good && hold_image(change->disk, &change->image, error) &&
	       pool_left_allows(pool, change->disk, new_name, error) &&
	       (!change->replaced || change->replaced == change->disk ||
		(hold_image(change->replaced, &change->replaced_image, error) &&
		 pool_left_allows(pool, change->replaced, false, error)));
}

static bool still_stands(const struct disk_pool_change *change, const char *name, bool replace, GError **error)
{
	struct disk_pool *pool = change->pool;
	struct disk_pool_change now;
	bool good;

	lock_take(&pool->lock);
	good = plan_locked(pool, name, change->new_name, replace, &now, error);
	lock_let_go(&pool->lock);
	g_free(now.file);
	if (!good)
		return false;
	if (now.disk != change->disk || now.replaced != change->replaced)
		return error_set(error, EBUSY, "%s: was replaced meanwhile", name);
	return is_held(pool, change->disk, change->image, error) &&
	       (!change->replaced_image || is_held(pool, change->replaced, change->replaced_image, error));
}

/* What a snapshot has left is removed by the name that the image has. */
static bool nothing_is_left_locked(struct disk_pool *pool, const struct disk *disk, GError **error)
{
	lock_assert_mine(&pool->scanning);
	pool_take_back_failed_locked(pool);
	return !disk || !pool_has_failed_locked(pool, disk) ||
	       error_set(error, EBUSY, "%s: what was made for a snapshot of it that failed is not all removed yet",
			 disk->name);
}

static void change_free(struct disk_pool_change *change)
{
	(void)image_close(change->image);
	(void)image_close(change->replaced_image);
	disk_unref(change->disk);
	disk_unref(change->replaced);
	g_free(change->new_name);
	g_free(change->file);
	g_free(change);
}

static bool make_change(const struct disk_pool_change *change, GError **error)
{
	const char *path = disk_image_path(change->disk);

	return change->file ? move_owned(change->pool, path, change->file, change->replaced, error)
			    : remove_owned(change->pool, path, error);
}

static void look_at_change(struct disk_pool_change *change)
{
	const char *const changed[] = {pool_file_name(disk_image_path(change->disk)),
				       change->file ? pool_file_name(change->file) : NULL, NULL};

	change->flushed = sync_directory(change->pool);
	change->result = pool_look_at_locked(change->pool, changed);
}

static struct disk_pool_change *begin(struct disk_pool *pool, const char *name, const char *new_name, bool replace,
				      GError **error)
{
	struct disk_pool_change *change = g_new0(struct disk_pool_change, 1);

	if (plan(pool, name, new_name, replace, change, error)) {
		lock_take(&pool->scanning);
		if (nothing_is_left_locked(pool, change->disk, error) &&
		    nothing_is_left_locked(pool, change->replaced, error) &&
		    still_stands(change, name, replace, error) && make_change(change, error)) {
			look_at_change(change);
			return change;
		}
		lock_let_go(&pool->scanning);
	}
	change_free(change);
	return NULL;
}

struct disk_pool_change *disk_pool_rename(struct disk_pool *pool, const char *name, const char *new_name, bool replace,
					  GError **error)
{
	return begin(pool, name, new_name, replace, error);
}

struct disk_pool_change *disk_pool_remove(struct disk_pool *pool, const char *name, GError **error)
{
	return begin(pool, name, NULL, false, error);
}

struct disk *disk_pool_change_disk(const struct disk_pool_change *change)
{
	return change->disk;
}

struct disk *disk_pool_change_replaced(const struct disk_pool_change *change)
{
	return change->replaced;
}

struct disk *disk_pool_change_show(struct disk_pool_change *change)
{
	if (change->result)
		pool_show_locked(change->pool, g_steal_pointer(&change->result));
	return change->new_name ? disk_pool_find(change->pool, change->new_name) : NULL;
}

bool disk_pool_change_end(struct disk_pool_change *change, GError **error)
{
	int flushed = change->flushed;

	lock_let_go(&change->pool->scanning);
	if (flushed < 0)
		error_set_errno(error, -flushed, "%s: cannot be flushed", disk_pool_path(change->pool));
	change_free(change);
	return flushed == 0;
}
