/* A pool's directory, and the disks that it makes.
 *
 * What is kept: the disks by shown name, and the headers read so far (the
 * chain cache, by path and time stamps). A scan builds the set of disks anew
 * and keeps those objects that are still the same file under the same name;
 * the others live on while somebody holds them. A scan is due when the
 * directory's time stamp has moved, or is too fresh to tell. */
#include "disk/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/config.h"
#include "core/error.h"
#include "core/log.h"
#include "core/verdict.h"
#include "modes.h"
#include "names.h"
#include "owner.h"
#include "scan.h"
#include "tunables.h"

/* File systems stamp times no finer than this. */
#define TIMESTAMP_GRAIN_NS (UINT64_C(20) * 1000 * 1000)

struct disk_pool {
	struct scan_options options;
	struct chain_roots *roots;
	GMutex lock;
	GHashTable *disks; /* disk->name -> struct disk */
	struct names *names;
	struct chain_cache *cache;
	struct timespec scanned; /* the directory's mtime when it was scanned */
	bool fresh;		 /* it was younger than the grain then, or could not be scanned */
	char *broken;		 /* lines, as of the last scan */
	char *notes;
	bool quiet;
	GHashTable *known; /* the scan's */
	uint64_t next_id;
	struct local *local; /* NULL: there is no cache */
	struct tunables *tunables;
	struct owner_self owner;
};

static struct place *place_of(const struct disk_pool *pool)
{
	return chain_roots_pool(pool->roots);
}

static struct disk *find_same(struct disk_pool *pool, const struct scan_found *found)
{
	struct disk *disk = g_hash_table_lookup(pool->disks, found->name);
	g_autoptr(GPtrArray) links = NULL;
	const struct chain_link *old, *new = found->links->pdata[0];

	if (!disk || disk->writable != found->writable || disk->configured_mode != found->mode ||
	    g_strcmp0(disk->spelled, found->spelled) != 0)
		return NULL;
	links = disk_get_links(disk);
	old = links->pdata[0];
	return old->device == new->device && old->inode == new->inode ? disk : NULL;
}

static void take_found(struct disk_pool *pool, GHashTable *disks, struct scan_found *found)
{
	struct disk *disk = find_same(pool, found);

	if (disk) {
		disk_ref(disk);
	} else {
		disk = disk_new(found->name, found->writable, ++pool->next_id, g_ptr_array_ref(found->links),
				pool->roots, found->spelled, found->mode, pool->local);
		disk->owner = &pool->owner;
	}
	/* The key is the disk's own, so it goes with the disk. */
	g_hash_table_replace(disks, disk->name, disk);
}

/* Each line once; *KNOWN is what the last scan said. */
static void log_new_lines(struct disk_pool *pool, const char *text, const char *suffix, char **known)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

	for (char **line = lines; *line && !pool->quiet; line++)
		if (**line && (!*known || !strstr(*known, *line)))
			log_warning("%s%s", *line, suffix);
	g_free(*known);
	*known = g_strdup(text);
}

static bool stamp(struct disk_pool *pool, struct timespec *mtime, bool *fresh, GError **error)
{
	struct timespec now;
	struct stat st;
	int64_t age;

	chain_roots_renew(pool->roots);
	if (fstat(place_of(pool)->fd, &st) < 0)
		return error_set_errno(error, errno, "%s: cannot be looked at", place_of(pool)->path);
	clock_gettime(CLOCK_REALTIME, &now);
	age = (now.tv_sec - st.st_mtim.tv_sec) * INT64_C(1000000000) + now.tv_nsec - st.st_mtim.tv_nsec;
	*mtime = st.st_mtim;
	*fresh = age < (int64_t)TIMESTAMP_GRAIN_NS;
	return true;
}

static bool scan_locked(struct disk_pool *pool, GError **error)
{
	GHashTable *disks = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)disk_unref);
	g_autoptr(GString) broken = g_string_new(NULL), notes = g_string_new(NULL);
	g_autoptr(GPtrArray) found = NULL;

	if (stamp(pool, &pool->scanned, &pool->fresh, error))
		found = scan_directory(&pool->options, pool->roots, pool->cache, pool->names, &pool->known, broken,
				       notes, error);
	if (!found) {
		pool->fresh = true;
		g_hash_table_destroy(disks);
		return false;
	}
	for (guint i = 0; i < found->len; i++)
		take_found(pool, disks, found->pdata[i]);
	g_hash_table_destroy(pool->disks);
	pool->disks = disks;
	log_new_lines(pool, broken->str, " (not shown)", &pool->broken);
	log_new_lines(pool, notes->str, "", &pool->notes);
	return true;
}

static void rescan_if_changed_locked(struct disk_pool *pool)
{
	g_autoptr(GError) error = NULL;
	struct timespec mtime;
	bool fresh;

	if (!stamp(pool, &mtime, &fresh, &error)) {
		log_warning("%s", error->message);
		return;
	}
	if (!pool->fresh && !*pool->broken && mtime.tv_sec == pool->scanned.tv_sec &&
	    mtime.tv_nsec == pool->scanned.tv_nsec)
		return;
	if (!scan_locked(pool, &error))
		log_warning("%s", error->message);
}

static bool set_grow_command(const char *text, GError **error)
{
	g_auto(GStrv) argv = NULL;
	g_autoptr(GError) local = NULL;

	if (!text)
		return true;
	if (!g_shell_parse_argv(text, NULL, &argv, &local))
		return error_set(error, EINVAL, "grow_command \"%s\": %s", text, local->message);
	image_set_grow_command((const char *const *)argv);
	return true;
}

/* Bit 1 << MODE for each mode that a disk may have. */
static unsigned modes_used(const struct disk_pool_options *options)
{
	g_auto(GStrv) groups = options->config ? g_key_file_get_groups(options->config, NULL) : NULL;
	unsigned used = 1u << options->mode;

	for (char **group = groups; group && *group; group++) {
		g_autofree char *text = g_key_file_get_string(options->config, *group, "mode", NULL);
		enum disk_mode mode;

		if (g_str_has_prefix(*group, "disk ") && text && disk_mode_from_name(text, &mode))
			used |= 1u << mode;
	}
	return used;
}

#define MODES_WITH_CACHE (1u << DISK_MODE_PERSISTENT | 1u << DISK_MODE_WRITEBACK)

static bool open_local(struct disk_pool *pool, const struct disk_pool_options *options, GError **error)
{
	unsigned used = modes_used(options);
	struct local_options local = {
		.pool = place_of(pool),
		.cache = options->cache,
		.cache_size = options->cache_size,
		.tunables = pool->tunables,
	};

	if (used == 1u << DISK_MODE_DIRECT && !options->cache)
		return true;
	for (enum disk_mode mode = DISK_MODE_DIRECT; mode <= DISK_MODE_WRITEBACK; mode++)
		if (used & 1u << mode & MODES_WITH_CACHE && !options->cache)
			return error_set(error, EINVAL, "mode %s needs a cache: -o cache=FILE, on fast local storage",
					 disk_mode_name(mode));
	pool->local = local_new(&local, error);
	return pool->local;
}

/* What others left is swept only where this pool will write as well. */
static void init_owner(struct disk_pool *pool, const struct disk_pool_options *options)
{
	uint8_t cache_id[OWNER_ID_BYTES] = {0};

	_Static_assert(OWNER_ID_BYTES == CACHE_ID_BYTES, "a cache's identity");
	if (pool->local)
		cache_get_id(pool->local->cache, cache_id);
	owner_self_init(&pool->owner, options->cache, options->cache ? cache_id : NULL);
	if (!options->read_only && modes_used(options) != 1u << DISK_MODE_EPHEMERAL)
		owner_sweep(disk_pool_path(pool));
}

struct disk_pool *disk_pool_open(const struct disk_pool_options *options, GError **error)
{
	struct disk_pool *pool = g_new0(struct disk_pool, 1);

	g_mutex_init(&pool->lock);
	pool->disks = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)disk_unref);
	pool->names = names_new();
	pool->cache = chain_cache_new();
	pool->known = scan_known_new();
	pool->quiet = options->quiet;
	pool->tunables = tunables_new(&options->tunables);
	pool->options = (struct scan_options){
		.glob = g_strdup(options->disks),
		.read_only = options->read_only,
		.config = options->config,
		.mode = options->mode,
	};
	if (set_grow_command(options->grow_command, error))
		pool->roots = chain_roots_new(options->path, options->layers, error);
	if (pool->roots && open_local(pool, options, error)) {
		init_owner(pool, options);
		if (scan_locked(pool, error)) {
			disk_pool_resume(pool);
			return pool;
		}
	}
	disk_pool_close(pool);
	return NULL;
}

bool disk_pool_stop(struct disk_pool *pool)
{
	g_hash_table_remove_all(pool->disks);
	disk_await_disposals();
	return !pool->local || local_stop(pool->local);
}

int disk_pool_leave(struct disk_pool *pool, uint64_t patience_ns, uint64_t *left_bytes)
{
	struct cache_status status;
	int result;

	*left_bytes = 0;
	if (!pool->local)
		return 0;
	result = cache_leave(pool->local->cache, patience_ns);
	cache_get_status(pool->local->cache, &status);
	*left_bytes = status.dirty_blocks << BLOCK_SHIFT;
	return status.dirty_blocks > 0 ? result : 0;
}

void disk_pool_close(struct disk_pool *pool)
{
	if (!pool)
		return;
	g_hash_table_destroy(pool->disks);
	disk_await_disposals();
	local_free(pool->local);
	tunables_free(pool->tunables);
	owner_self_clear(&pool->owner);
	chain_cache_free(pool->cache);
	g_hash_table_unref(pool->known);
	names_free(pool->names);
	chain_roots_unref(pool->roots);
	g_free(pool->options.glob);
	g_mutex_clear(&pool->lock);
	g_free(pool->broken);
	g_free(pool->notes);
	g_free(pool);
}

void disk_pool_get_tunables(struct disk_pool *pool, struct disk_tunables *tunables)
{
	tunables_get(pool->tunables, tunables);
}

bool disk_pool_set_tunable(struct disk_pool *pool, const char *key, const char *value, GError **error)
{
	bool good = tunables_set(pool->tunables, key, value, error);

	if (good && pool->local)
		local_tune(pool->local);
	return good;
}

struct local *disk_pool_local(struct disk_pool *pool)
{
	return pool->local;
}

const char *disk_pool_path(const struct disk_pool *pool)
{
	return place_of(pool)->path;
}

/* False where it is gone, or its name has another file; what cannot be looked at
 * now is not gone. */
static bool is_there(struct disk *disk)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	g_autoptr(GError) error = NULL;
	struct chain_file file;

	if (!chain_link_find(links->pdata[0], &file, &error))
		return error_class_of(STORE_OPEN, error_to_errno(error)) == ERROR_DESCRIPTORS;
	chain_file_clear(&file);
	return true;
}

/* Known, and still that file. */
static struct disk *find_locked(struct disk_pool *pool, const char *name)
{
	struct disk *disk = g_hash_table_lookup(pool->disks, name);

	return disk && (disk->open || is_there(disk)) ? disk : NULL;
}

struct disk *disk_pool_lookup(struct disk_pool *pool, const char *name)
{
	struct disk *disk;

	g_mutex_lock(&pool->lock);
	disk = find_locked(pool, name);
	if (!disk) {
		rescan_if_changed_locked(pool);
		disk = find_locked(pool, name);
	}
	if (disk)
		disk_ref(disk);
	g_mutex_unlock(&pool->lock);
	return disk;
}

static gint compare_names(gconstpointer a, gconstpointer b)
{
	const struct disk *const *first = a;
	const struct disk *const *second = b;

	return strcmp((*first)->name, (*second)->name);
}

GPtrArray *disk_pool_list(struct disk_pool *pool)
{
	GPtrArray *list = g_ptr_array_new_with_free_func((GDestroyNotify)disk_unref);
	GHashTableIter iter;
	gpointer disk;

	g_mutex_lock(&pool->lock);
	rescan_if_changed_locked(pool);
	g_hash_table_iter_init(&iter, pool->disks);
	while (g_hash_table_iter_next(&iter, NULL, &disk))
		g_ptr_array_add(list, disk_ref(disk));
	g_mutex_unlock(&pool->lock);
	g_ptr_array_sort(list, compare_names);
	return list;
}

int disk_pool_stat(struct disk_pool *pool, struct stat *st)
{
	return fstat(place_of(pool)->fd, st) < 0 ? -errno : 0;
}

int disk_pool_statvfs(struct disk_pool *pool, struct statvfs *st)
{
	return fstatvfs(place_of(pool)->fd, st) < 0 ? -errno : 0;
}

char *disk_pool_broken(struct disk_pool *pool)
{
	char *broken;

	g_mutex_lock(&pool->lock);
	broken = g_strdup(pool->broken);
	g_mutex_unlock(&pool->lock);
	return broken;
}

/* "x.img" -> "x"; ERROR when the name cannot be a disk's. */
static char *stem_of(const char *name, GError **error)
{
	if (g_str_has_suffix(name, ".img") && strlen(name) > 4 && name[0] != '.' && !strchr(name, '/'))
		return g_strndup(name, strlen(name) - 4);
	error_set(error, EINVAL, "%s: a disk's name ends in .img and does not begin with a dot", name);
	return NULL;
}

static int sync_directory(struct disk_pool *pool)
{
	return fsync(place_of(pool)->fd) < 0 ? -errno : 0;
}

static bool name_is_free(struct disk_pool *pool, const char *name, GError **error)
{
	if (g_hash_table_contains(pool->disks, name))
		return error_set(error, EEXIST, "%s: exists", name);
	return !names_is_given(pool->names, name) ||
	       error_set(error, EEXIST, "%s: is the name of an image that is not shown now", name);
}

static struct disk *create_locked(struct disk_pool *pool, const char *name, const char *stem, GError **error)
{
	g_autofree char *path = g_strconcat(disk_pool_path(pool), "/", stem, ".leaf", NULL);
	struct image_create_options options = {0};
	struct disk *disk;

	if (!name_is_free(pool, name, error) ||
	    !image_create_in(place_of(pool)->fd, path, IMAGE_FORMAT_LEAF, &options, error))
		return NULL;
	disk = scan_locked(pool, error) ? g_hash_table_lookup(pool->disks, name) : NULL;
	if (disk)
		return disk_ref(disk);
	(void)unlinkat(place_of(pool)->fd, strrchr(path, '/') + 1, 0);
	if (error && !*error)
		error_set(error, EINVAL, "%s: would not be among the disks of this mount", path);
	return NULL;
}

struct disk *disk_pool_create(struct disk_pool *pool, const char *name, GError **error)
{
	g_autofree char *stem = stem_of(name, error);
	struct disk *disk;

	if (!stem)
		return NULL;
	g_mutex_lock(&pool->lock);
	disk = create_locked(pool, name, stem, error);
	g_mutex_unlock(&pool->lock);
	if (disk)
		sync_directory(pool);
	return disk;
}

static bool is_outside(struct disk *disk)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);

	return ((const struct chain_link *)links->pdata[0])->outside;
}

/* A disk that may be moved or removed: its own file in the pool, not open,
 * nobody's parent. */
static struct disk *find_free_locked(struct disk_pool *pool, const char *name, GError **error)
{
	struct disk *disk = g_hash_table_lookup(pool->disks, name);

	if (!disk)
		error_set(error, ENOENT, "%s: is not a disk of this pool", name);
	else if (pool->options.read_only)
		error_set(error, EROFS, "%s: the pool is mounted read-only", name);
	else if (disk->spelled)
		error_set(error, EBUSY, "%s: is made by the configuration", name);
	else if (disk->opens)
		error_set(error, EBUSY, "%s: is open", name);
	else if (disk->open)
		error_set(error, EBUSY, "%s: has changes in the cache that are being written back", name);
	else if (!disk->writable)
		error_set(error, EBUSY,
			  is_outside(disk) ? "%s: is a link to an image outside the pool"
					   : "%s: another image depends on it",
			  name);
	else
		return disk;
	return NULL;
}

/* What an ephemeral disk was given belongs to its name: the disk under the new one
 * would be as its image is. */
static struct disk *find_movable_locked(struct disk_pool *pool, const char *name, GError **error)
{
	struct disk *disk = find_free_locked(pool, name, error);

	if (!disk || disk->mode != DISK_MODE_EPHEMERAL || !disk->cached)
		return disk;
	error_set(error, EBUSY, "%s: has changes that only this mount has, and would lose them", name);
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
static bool target_gives_way(struct disk_pool *pool, const char *name, const char *file, bool replace,
			     struct disk **replaced, GError **error)
{
	*replaced = g_hash_table_lookup(pool->disks, name);
	if (!*replaced)
		return name_is_free(pool, name, error);
	if (!find_free_locked(pool, name, error))
		return false;
	if (replace && strcmp(disk_image_path(*replaced), file) == 0)
		return true;
	return error_set(error, EEXIST, "%s: exists; remove it first", name);
}

/* The file's name right in the pool. */
static const char *name_in_pool(const char *path)
{
	return strrchr(path, '/') + 1;
}

/* The image of a disk that is to be moved or removed, locked against other
 * programs, and checked to be what its name has now. */
static bool hold_image(struct disk *disk, struct image **image, GError **error)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	const struct chain_link *leaf = links->pdata[0];
	g_autoptr(GError) local = NULL;
	struct chain_file file;

	*image = NULL;
	if (!chain_link_find(leaf, &file, error))
		return false;
	if (!leaf->outside)
		*image = image_open_fd(file.fd, leaf->path, IMAGE_FORMAT_RAW, IMAGE_WRITABLE | IMAGE_BEGIN_LATER, 0,
				       &local);
	if (leaf->outside || (local && error_class_of(STORE_OPEN, error_to_errno(local)) == ERROR_READ_ONLY)) {
		g_clear_error(&local);
		*image = image_open_fd(file.fd, leaf->path, IMAGE_FORMAT_RAW, 0, 0, &local);
	}
	chain_file_clear(&file);
	if (local)
		g_propagate_error(error, g_steal_pointer(&local));
	return *image;
}

static bool move_file(struct disk_pool *pool, const char *old, const char *file, bool replace, GError **error)
{
	int directory = place_of(pool)->fd;

	if (renameat2(directory, name_in_pool(old), directory, name_in_pool(file), replace ? 0 : RENAME_NOREPLACE) == 0)
		return true;
	return error_set_errno(error, errno, "%s: cannot be renamed to %s", old, file);
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
	return unlinkat(place_of(pool)->fd, name_in_pool(path), 0) == 0 ||
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

static bool directory_changed(struct disk_pool *pool, GError **error)
{
	int result = sync_directory(pool);

	scan_locked(pool, NULL);
	return result == 0 || error_set_errno(error, -result, "%s: cannot be flushed", disk_pool_path(pool));
}

/* Whether the file right in the pool is still the one that is held; a link to it
 * is moved or removed alone. */
static bool is_held(struct disk_pool *pool, struct disk *disk, const struct image *image, GError **error)
{
	struct stat st;

	if (fstatat(place_of(pool)->fd, name_in_pool(disk_image_path(disk)), &st, AT_SYMLINK_NOFOLLOW) < 0)
		return error_set_errno(error, errno, "%s: cannot be found", disk_image_path(disk));
	return S_ISLNK(st.st_mode) || (st.st_ino == image->inode && st.st_dev == image->device) ||
	       error_set(error, EBUSY, "%s: was replaced meanwhile", disk_image_path(disk));
}

/* What a rename or a removal is about. The images are locked between two looks at
 * the pool, as another program's lock is waited for a moment. */
struct change {
	struct disk *disk;
	struct disk *replaced; /* NULL: nothing is */
	struct image *image;
	struct image *replaced_image;
	char *file; /* the new name's; NULL: it is removed */
};

static bool change_plan_locked(struct disk_pool *pool, const char *name, const char *new_name, bool replace,
			       struct change *change, GError **error)
{
	g_autofree char *stem = new_name ? stem_of(new_name, error) : NULL;

	*change = (struct change){0};
	if (!new_name)
		return (change->disk = find_free_locked(pool, name, error));
	change->disk = stem ? find_movable_locked(pool, name, error) : NULL;
	if (!change->disk)
		return false;
	change->file = renamed_path(pool, change->disk, stem);
	return target_gives_way(pool, new_name, change->file, replace, &change->replaced, error);
}

static bool change_plan(struct disk_pool *pool, const char *name, const char *new_name, bool replace,
			struct change *change, GError **error)
{
	bool good;

	g_mutex_lock(&pool->lock);
	good = change_plan_locked(pool, name, new_name, replace, change, error);
	if (change->disk)
		disk_ref(change->disk);
	if (change->replaced)
		disk_ref(change->replaced);
	g_mutex_unlock(&pool->lock);
	return good && hold_image(change->disk, &change->image, error) &&
	       (!change->replaced || change->replaced == change->disk ||
		hold_image(change->replaced, &change->replaced_image, error));
}

static bool change_stands_locked(struct disk_pool *pool, const char *name, const char *new_name, bool replace,
				 const struct change *change, GError **error)
{
	struct change now;
	bool good = change_plan_locked(pool, name, new_name, replace, &now, error);

	g_free(now.file);
	if (!good)
		return false;
	if (now.disk != change->disk || now.replaced != change->replaced)
		return error_set(error, EBUSY, "%s: was replaced meanwhile", name);
	return is_held(pool, change->disk, change->image, error) &&
	       (!change->replaced_image || is_held(pool, change->replaced, change->replaced_image, error));
}

static void change_clear(struct change *change)
{
	(void)image_close(change->image);
	(void)image_close(change->replaced_image);
	disk_unref(change->disk);
	disk_unref(change->replaced);
	g_free(change->file);
}

bool disk_pool_rename(struct disk_pool *pool, const char *name, const char *new_name, bool replace, GError **error)
{
	struct change change;
	bool good = change_plan(pool, name, new_name, replace, &change, error);

	g_mutex_lock(&pool->lock);
	good = good && change_stands_locked(pool, name, new_name, replace, &change, error) &&
	       move_owned(pool, disk_image_path(change.disk), change.file, change.replaced, error) &&
	       directory_changed(pool, error);
	g_mutex_unlock(&pool->lock);
	change_clear(&change);
	return good;
}

bool disk_pool_remove(struct disk_pool *pool, const char *name, GError **error)
{
	struct change change;
	bool good = change_plan(pool, name, NULL, false, &change, error);

	g_mutex_lock(&pool->lock);
	good = good && change_stands_locked(pool, name, NULL, false, &change, error) &&
	       remove_owned(pool, disk_image_path(change.disk), error) && directory_changed(pool, error);
	g_mutex_unlock(&pool->lock);
	change_clear(&change);
	return good;
}
