/* Drains, and modes that change while a disk is in use.
 *
 * A drain waits for what is dirty when it begins. What a guest writes meanwhile
 * would keep it for ever; it goes as well, but who waits is not told of it.
 *
 * What is dirty belongs to disks that are open, or to images that nobody has
 * opened since the mount began: those are opened for it. */
#include <errno.h>

#include "core/error.h"
#include "core/log.h"
#include "core/thread.h"
#include "disk/pool.h"
#include "internal.h"
#include "route.h"

/* How often who drains is asked whether to go on. */
#define ASK_US (100 * 1000)

/* ---- One disk --------------------------------------------------------------- */

static uint64_t dirty_bytes_of(struct disk *disk)
{
	struct disk_status status;

	disk_get_status(disk, &status);
	return status.dirty_bytes;
}

/* The same while it is open: its lock may be held. */
static uint64_t dirty_bytes_of_open(struct disk *disk)
{
	struct disk_status status = {0};

	if (disk->local)
		(void)migrate_get_status(disk, &status);
	return status.dirty_bytes;
}

#define EVERYTHING UINT64_MAX

/* With what was put before UNTIL_NS; also where it never will be clean. */
static bool is_dirty(struct disk *disk, uint64_t until_ns)
{
	struct disk_status status;

	if (!disk->local)
		return false;
	if (migrate_has_failed(disk))
		return true;
	if (!migrate_is_needed(disk))
		return false;
	if (until_ns == EVERYTHING)
		return true;
	disk_get_status(disk, &status);
	return loop_now_ns() - status.dirty_ns < until_ns;
}

/* Until it is clean, or FAILED for a while; or GO_ON says no. */
static int wait_until_clean(struct disk *disk, uint64_t until_ns, bool (*go_on)(void *opaque, uint64_t dirty_bytes),
			    void *opaque, GError **error)
{
	while (is_dirty(disk, until_ns)) {
		g_autofree char *reason = NULL;
		int result = migrate_get_error(disk, &reason);

		if (result < 0)
			return error_set_errno(error, -result, "%s: its changes stay in the cache: %s", disk->name,
					       reason),
			       result;
		if (go_on && !go_on(opaque, dirty_bytes_of_open(disk)))
			return error_set(error, EINTR, "%s: given up; what is left stays in the cache", disk->name),
			       -EINTR;
		g_usleep(ASK_US);
	}
	return 0;
}

static int drain_open(struct disk *disk, uint64_t until_ns, bool (*go_on)(void *opaque, uint64_t dirty_bytes),
		      void *opaque, GError **error)
{
	int result;

	if (!is_dirty(disk, until_ns))
		return 0;
	migrate_urge(disk, 1);
	result = wait_until_clean(disk, until_ns, go_on, opaque, error);
	migrate_urge(disk, -1);
	return result;
}

int disk_drain(struct disk *disk, bool (*go_on)(void *opaque, uint64_t dirty_bytes), void *opaque, GError **error)
{
	int result = 0;

	thread_assert_may_wait();
	if (!disk->local)
		return 0;
	if (!disk->open && route_left_in_cache(disk)) {
		result = disk_open(disk, true, error);
		if (result == 0)
			(void)disk_close(disk);
	}
	return result < 0 ? result : drain_open(disk, loop_now_ns(), go_on, opaque, error);
}

/* ---- Modes ------------------------------------------------------------------ */

static bool may_change(struct disk *disk, enum disk_mode mode, GError **error)
{
	if (!disk->writable)
		return error_set(error, EROFS, "%s: is read-only, in any mode", disk->name);
	if (mode != DISK_MODE_DIRECT && !disk->local)
		return error_set(error, EINVAL,
				 "%s: mode %s needs a cache: mount the pool with -o cache=FILE, on fast local storage",
				 disk->name, disk_mode_name(mode));
	if (mode != disk->mode && (mode == DISK_MODE_EPHEMERAL || disk->mode == DISK_MODE_EPHEMERAL) &&
	    (disk->open || disk->cached))
		return error_set(error, EBUSY,
				 "%s: an ephemeral disk's changes are nobody else's: it enters and leaves that mode "
				 "only before its first use in a mount",
				 disk->name);
	return true;
}

struct change {
	struct disk *disk;
	bool (*go_on)(void *opaque, uint64_t dirty_bytes);
	void *opaque;
};

static bool change_goes_on(void *opaque)
{
	const struct change *change = opaque;

	return !change->go_on || change->go_on(change->opaque, dirty_bytes_of_open(change->disk));
}

/* Behind the closed gate, so that nothing new comes. */
static bool drain_closed(struct change *change, GError **error)
{
	struct disk *disk = change->disk;
	int result;

	if (!disk->local)
		return true;
	migrate_lend_leaf(disk, true);
	result = drain_open(disk, EVERYTHING, change->go_on, change->opaque, error);
	migrate_lend_leaf(disk, false);
	return result == 0;
}

static bool drain_and_change(struct change *change, enum disk_mode mode, GError **error)
{
	struct disk *disk = change->disk;
	enum disk_mode before = disk->mode;
	bool good = drain_closed(change, error);

	disk->mode = mode;
	if (good)
		good = route_change(disk, error);
	if (!good)
		disk->mode = before;
	return good;
}

static bool change_open(struct change *change, enum disk_mode mode, GError **error)
{
	struct disk *disk = change->disk;
	bool good;

	if (!gate_close_while(disk, change_goes_on, change))
		return error_set(error, EINTR, "%s: given up while requests have no answer yet; its mode stays %s",
				 disk->name, disk_mode_name(disk->mode));
	good = drain_and_change(change, mode, error);
	gate_open(disk);
	return good;
}

int disk_set_mode(struct disk *disk, enum disk_mode mode, bool (*go_on)(void *opaque, uint64_t dirty_bytes),
		  void *opaque, GError **error)
{
	struct change change = {disk, go_on, opaque};
	g_autoptr(GError) local = NULL;
	int result = mode == DISK_MODE_WRITEBACK ? 0 : disk_drain(disk, go_on, opaque, error);

	if (result < 0)
		return result;
	g_mutex_lock(&disk->open_lock);
	if (may_change(disk, mode, &local) && mode != disk->mode && (!disk->open || change_open(&change, mode, &local)))
		disk->mode = mode;
	g_mutex_unlock(&disk->open_lock);
	if (!local)
		return 0;
	result = error_to_errno(local);
	g_propagate_error(error, g_steal_pointer(&local));
	return result;
}

/* ---- A pool ------------------------------------------------------------------ */

struct drain_all {
	bool (*go_on)(void *opaque, uint64_t dirty_bytes);
	void *opaque;
	GPtrArray *disks;
	GString *left; /* sentences */
	uint64_t left_bytes;
	bool given_up;
};

static uint64_t dirty_bytes_of_all(const struct drain_all *all)
{
	uint64_t bytes = 0;

	for (guint i = 0; i < all->disks->len; i++)
		bytes += dirty_bytes_of(all->disks->pdata[i]);
	return bytes;
}

static bool go_on_with_all(void *opaque, uint64_t dirty_bytes)
{
	struct drain_all *all = opaque;

	(void)dirty_bytes;
	all->given_up = all->go_on && !all->go_on(all->opaque, dirty_bytes_of_all(all));
	return !all->given_up;
}

static void note_left(struct drain_all *all, uint64_t bytes, const char *sentence)
{
	g_string_append_printf(all->left, "%s%s", all->left->len ? "; " : "", sentence);
	all->left_bytes += bytes;
}

/* The cache keeps as much of a path. */
static struct disk *find_by_path(GPtrArray *disks, const char *path)
{
	for (guint i = 0; i < disks->len; i++)
		if (strncmp(disk_image_path(disks->pdata[i]), path, CACHE_NAME_BYTES) == 0)
			return disks->pdata[i];
	return NULL;
}

static void note_nameless(void *opaque, const char *name, uint64_t dirty_blocks)
{
	struct drain_all *all = opaque;
	g_autofree char *sentence = g_strdup_printf("%s: is not among the disks of this mount", name);

	if (!find_by_path(all->disks, name))
		note_left(all, dirty_blocks << BLOCK_SHIFT, sentence);
}

/* All at once; those that are opened or closed meanwhile too. */
static void urge_each(const struct drain_all *all, int change)
{
	for (guint i = 0; i < all->disks->len; i++)
		migrate_urge(all->disks->pdata[i], change);
}

static void drain_each(struct drain_all *all)
{
	urge_each(all, 1);
	for (guint i = 0; i < all->disks->len; i++) {
		struct disk *disk = all->disks->pdata[i];
		g_autoptr(GError) error = NULL;

		if (!all->given_up && disk_drain(disk, go_on_with_all, all, &error) < 0)
			note_left(all, dirty_bytes_of(disk), error->message);
		else if (all->given_up && migrate_is_needed(disk))
			note_left(all, dirty_bytes_of(disk), disk->name);
	}
	urge_each(all, -1);
}

bool disk_pool_drain(struct disk_pool *pool, bool (*go_on)(void *opaque, uint64_t dirty_bytes), void *opaque,
		     GError **error)
{
	g_autoptr(GPtrArray) disks = disk_pool_shown(pool);
	struct local *local = disk_pool_local(pool);
	g_autoptr(GString) left = g_string_new(NULL);
	g_autofree char *size = NULL;
	struct drain_all all = {.go_on = go_on, .opaque = opaque, .disks = disks, .left = left};

	if (!local)
		return true;
	drain_each(&all);
	cache_layer_foreach_dirty(local->cache, false, note_nameless, &all);
	if (left->len == 0)
		return true;
	size = config_format_size(all.left_bytes);
	return error_set(error, all.given_up ? EINTR : EIO, "%s of changes stay in the cache: %s", size, left->str);
}

/* ---- After a mount ------------------------------------------------------------ */

void disk_pool_end(struct disk_pool *pool)
{
	struct local *local = disk_pool_local(pool);

	if (!local)
		return;
	local->ending = true;
	migrate_look_again(local);
}

struct resume {
	GPtrArray *disks;
};

static void resume_one(void *opaque, const char *name, uint64_t dirty_blocks)
{
	struct resume *resume = opaque;
	struct disk *disk = find_by_path(resume->disks, name);
	g_autofree char *size = config_format_size(dirty_blocks << BLOCK_SHIFT);
	g_autoptr(GError) error = NULL;

	if (!disk)
		log_warning("the cache has %s of changes of %s, which is not among the disks of this mount; they stay "
			    "there",
			    size, name);
	else if (disk_open(disk, true, &error) < 0)
		log_warning("the cache has %s of changes that stay there for now: %s", size, error->message);
	else
		(void)disk_close(disk);
}

static void warn_of_orphan(void *opaque, const char *name, uint64_t dirty_blocks)
{
	g_autofree char *size = config_format_size(dirty_blocks << BLOCK_SHIFT);

	(void)opaque;
	log_warning("the cache has %s of changes of %s, which has another owner now: they are not written back; "
		    "leafctl cache dump saves them",
		    size, name);
}

void disk_pool_resume(struct disk_pool *pool)
{
	struct local *local = disk_pool_local(pool);
	struct resume resume;

	if (!local)
		return;
	resume.disks = disk_pool_shown(pool);
	cache_layer_foreach_dirty(local->cache, false, resume_one, &resume);
	cache_layer_foreach_dirty(local->cache, true, warn_of_orphan, NULL);
	g_ptr_array_unref(resume.disks);
}
