/* An ephemeral disk becomes an image of the pool.
 *
 * The image is made under a hidden name, which a crash leaves to be removed, and has its own once it has all: so there
 * is none that lacks something. Its parent remembers it before that. */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "changers.h"
#include "children.h"
#include "core/error.h"
#include "core/fault.h"
#include "core/log.h"
#include "disk/change.h"
#include "disk/keep.h"
#include "layer/parent.h"
#include "pool/snapshot.h"
#include "refresh.h"

/* Shown while the mount runs as the disk was; the image by itself is anybody's from then on. */
struct keeping {
	struct disk_pool *pool;
	struct disk *disk;
	struct chain_link *parent; /* what the disk was shown from, while it is ephemeral */
	char *staged;		   /* the hidden name in the pool */
	char *file;		   /* and the one that is wanted */
	char *path;		   /* with that, absolute */
	uint8_t uuid[IMAGE_UUID_BYTES];
	bool made, placed, told; /* the staged file; under its own name; the parent knows it */
	struct disk_keep copy;
	struct disk_change change;
};

static int directory_of(const struct keeping *keeping)
{
	return pool_place(keeping->pool)->fd;
}

static int at_step(const char *step, const struct keeping *keeping)
{
	return fault_hit(step, keeping->file);
}

/* ---- What may be -------------------------------------------------------------------- */

/* IMAGE: "x", "x.leaf"; NULL: a fork's own name. */
static char *file_of(const struct disk *disk, const char *image, GError **error)
{
	const char *wanted = image ? image : disk->name;
	g_autofree char *stem = NULL;

	if (!image && !disk->forked) {
		error_set(error, EINVAL,
			  "%s: is shown from %s, which stays as it is; name the image that the disk is to be: leafctl "
			  "keep %s IMAGE",
			  disk->name, disk->path, disk->name);
		return NULL;
	}
	if (g_str_has_suffix(wanted, ".leaf") || g_str_has_suffix(wanted, ".img"))
		stem = g_strndup(wanted, strlen(wanted) - strlen(strrchr(wanted, '.')));
	else
		stem = g_strdup(wanted);
	if (*stem && *stem != '.' && !strchr(stem, '/') && strlen(stem) + strlen(".leaf") <= NAME_MAX)
		return g_strconcat(stem, ".leaf", NULL);
	error_set(error, EINVAL,
		  "\"%s\" cannot name an image: a name has no /, does not begin with a dot, and is no longer "
		  "than a file's",
		  wanted);
	return NULL;
}

/* Of the image, where the mount shows it under its own name: in the next one two of that name would have none. */
static bool is_name_free(const struct keeping *keeping, GError **error)
{
	g_autofree char *stem = g_strndup(keeping->file, strlen(keeping->file) - strlen(".leaf"));
	g_autofree char *name = g_strconcat(stem, ".img", NULL);

	return (keeping->disk->forked && strcmp(keeping->disk->name, name) == 0) ||
	       pool_name_is_free(keeping->pool, name, error);
}

static bool is_free(const struct keeping *keeping, GError **error)
{
	struct stat st;
	int result = place_look_at(directory_of(keeping), keeping->file, &st);

	if (result == 0)
		return error_set(error, EEXIST, "%s: exists; name another image", keeping->path);
	if (result != -ENOENT)
		return error_set_errno(error, -result, "%s: cannot be looked at", keeping->path);
	return is_name_free(keeping, error);
}

static bool is_allowed(const struct keeping *keeping, GError **error)
{
	const struct disk *disk = keeping->disk;

	if (disk->mode != DISK_MODE_EPHEMERAL)
		return error_set(error, EINVAL, "%s: is no ephemeral disk, and is kept anyway", disk->name);
	if (disk->old == OLD_SHOWN)
		return error_set(error, EBUSY, "%s: shows old content, and its image is to get newer changes yet",
				 disk->name);
	if (disk->former_path)
		return error_set(error, EBUSY, "%s: has got another image in this mount already", disk->name);
	if (disk->spelled)
		return error_set(error, EOPNOTSUPP,
				 "%s: its layers are named by the configuration, which would not name "
				 "a new one",
				 disk->name);
	if (!disk_pool_shows(keeping->pool, disk))
		return error_set(error, ESTALE, "%s: is no disk of this pool any more: %s has another name, or is gone",
				 disk->name, keeping->parent->path);
	return is_free(keeping, error);
}

/* ---- The image ------------------------------------------------------------------------ */

/* As its child finds it, from the pool. */
static char *path_from_pool(const struct keeping *keeping)
{
	const char *real = keeping->parent->real, *relative = place_relative(pool_place(keeping->pool), real);

	return g_strdup(relative ? relative : real);
}

static bool make_image(struct keeping *keeping, GError **error)
{
	g_autofree char *path = g_build_filename(disk_pool_path(keeping->pool), keeping->staged, NULL);
	struct image_create_options options = {.size_bytes = keeping->disk->size_bytes, .uuid = keeping->uuid};
	struct image_parent parent;
	struct stat st;
	int fd;

	parent_describe(&keeping->parent->info, path_from_pool(keeping), &parent);
	options.parent = &parent;
	keeping->made = image_create_in(directory_of(keeping), path, IMAGE_FORMAT_LEAF, &options, error);
	image_parent_clear(&parent);
	if (!keeping->made)
		return false;
	fd = place_find_at(directory_of(keeping), keeping->staged, &st);
	if (fd < 0)
		return error_set_errno(error, -fd, "%s: cannot be opened", path);
	keeping->copy.image = image_open_fd(fd, path, IMAGE_FORMAT_LEAF, IMAGE_WRITABLE, 0, error);
	close(fd);
	return keeping->copy.image;
}

/* Those below it are told as by whoever opens one of its children to write it. */
static bool tell_parent(struct keeping *keeping, GError **error)
{
	g_autoptr(GPtrArray) links = disk_get_links(keeping->disk);

	keeping->told = pool_add_child(NULL, keeping->parent, keeping->uuid, keeping->path, error);
	if (keeping->told)
		parent_mark_chain(links, NULL, NULL);
	return keeping->told;
}

/* It has all: it is closed, and gets its name. */
static bool put_in_place(struct keeping *keeping, GError **error)
{
	int directory = directory_of(keeping), result;

	result = image_close(g_steal_pointer(&keeping->copy.image));
	if (result == 0)
		result = at_step("keep.closed", keeping);
	if (result == 0)
		result = place_rename_new(directory, keeping->staged, keeping->file);
	keeping->placed = result == 0;
	if (result == 0 && fsync(directory) < 0)
		result = -errno;
	return result == 0 || error_set_errno(error, -result, "%s: cannot be made", keeping->path);
}

/* ---- The disk ------------------------------------------------------------------------- */

static bool become(struct keeping *keeping, GError **error)
{
	GPtrArray *links = chain_links_new();

	if (at_step("keep.placed", keeping) < 0)
		error_set(error, EIO, "%s: cannot be opened", keeping->path);
	else if (chain_resolve(keeping->path, IMAGE_FORMAT_LEAF, keeping->pool->roots, NULL, links, error))
		return disk_become(keeping->disk, links, DISK_MODE_PERSISTENT, error);
	g_ptr_array_unref(links);
	return false;
}

static bool exchange(struct keeping *keeping, GError **error)
{
	bool good;

	if (!disk_change_close(&keeping->change, error))
		return false;
	good = disk_keep_rest(&keeping->copy, error) && put_in_place(keeping, error) && become(keeping, error);
	disk_change_open(&keeping->change);
	return good;
}

/* The disk has the name that it had; what it was shown from gets another. */
static void show(struct keeping *keeping)
{
	struct disk_pool *pool = keeping->pool;
	struct disk *disk = keeping->disk;
	const char *before = disk->forked ? NULL : pool_file_name(disk->former_path);
	const char *const changed[] = {keeping->file, before, NULL};
	struct scan_result *result;

	lock_take(&pool->lock);
	names_pass(pool->names, disk->name, before, keeping->file);
	disk->forked = false;
	disk->kept = true;
	lock_let_go(&pool->lock);
	result = pool_look_at_locked(pool, changed);
	if (result)
		pool_show_locked(pool, result);
}

static void take_away(struct keeping *keeping)
{
	const char *name = keeping->placed ? keeping->file : keeping->staged;
	int result = keeping->made ? place_remove(directory_of(keeping), name) : 0;

	keeping->made = false;
	if (result < 0 && result != -ENOENT)
		log_warning("%s/%s: was made for nothing, and cannot be removed: %s", disk_pool_path(keeping->pool),
			    name, g_strerror(-result));
	else if (keeping->told)
		pool_forget_child(keeping->pool, keeping->parent, keeping->uuid);
	keeping->told = false;
}

/* What has got its name and is nothing is gone before anybody finds it there. */
static bool finish_locked(struct keeping *keeping, GError **error)
{
	bool good;

	lock_assert_mine(&keeping->pool->scanning);
	good = is_allowed(keeping, error) && exchange(keeping, error);
	if (good)
		show(keeping);
	else if (keeping->placed)
		take_away(keeping);
	return good;
}

/* *AGAIN: it got so much while locks were waited for that guests would wait for it. */
static bool try_to_finish(struct keeping *keeping, bool *again, GError **error)
{
	bool good;

	if (!disk_change_begin(&keeping->change, error))
		return false;
	lock_take(&keeping->pool->scanning);
	*again = !disk_keep_is_little(&keeping->copy);
	good = *again || finish_locked(keeping, error);
	lock_let_go(&keeping->pool->scanning);
	disk_change_end(&keeping->change);
	return good;
}

static bool copy_and_finish(struct keeping *keeping, GError **error)
{
	bool again = true, good = true;

	while (good && again)
		good = disk_keep_most(&keeping->copy, error) && try_to_finish(keeping, &again, error);
	return good;
}

/* ---- All of it ------------------------------------------------------------------------- */

/* What is made for FILE, and a crash has left, is removed by the next command that makes it. */
static char *staged_name(const char *file)
{
	size_t length = strlen(file), room = NAME_MAX - strlen(".01234567-");

	return g_strdup_printf(".%08x-%s", g_random_int(), file + length - MIN(length, room));
}

static struct chain_link *take_parent(struct disk *disk)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);

	return chain_link_ref(links->pdata[0]);
}

static bool run(struct keeping *keeping, GError **error)
{
	int at_work;
	bool good;

	keeping->path = g_build_filename(disk_pool_path(keeping->pool), keeping->file, NULL);
	keeping->staged = staged_name(keeping->file);
	at_work = pool_join_those_at_work(directory_of(keeping));
	image_make_uuid(keeping->uuid);
	keeping->parent = take_parent(keeping->disk);
	good = is_allowed(keeping, error) && make_image(keeping, error) && tell_parent(keeping, error) &&
	       copy_and_finish(keeping, error);
	(void)image_close(keeping->copy.image);
	if (!good)
		take_away(keeping);
	if (at_work >= 0)
		close(at_work);
	disk_keep_clear(&keeping->copy);
	chain_link_unref(keeping->parent);
	g_free(keeping->path);
	g_free(keeping->staged);
	return good;
}

bool disk_pool_keep(struct disk_pool *pool, const char *name, const char *image, bool (*go_on)(void *opaque),
		    void *opaque, GError **error)
{
	const char *const names[] = {name, NULL};
	struct keeping keeping = {.pool = pool};
	bool good = false;

	if (pool->options.read_only)
		return error_set(error, EROFS, "%s: the pool is mounted read-only", name);
	if (!pool_open_to_change(pool, names, &keeping.disk, error))
		return false;
	keeping.copy = (struct disk_keep){.disk = keeping.disk, .go_on = go_on, .opaque = opaque};
	keeping.change = (struct disk_change){.disks = &keeping.disk, .count = 1, .go_on = go_on, .opaque = opaque};
	keeping.file = file_of(keeping.disk, image, error);
	if (keeping.file)
		good = run(&keeping, error);
	g_free(keeping.file);
	pool_close_changed(&keeping.disk, 1);
	return good;
}
