/* A pool's directory, and the disks that it makes.
 *
 * Who asks for a name that is not known has a look at what is new in the directory (SCAN_NEW),
 * who lists the pool, or wants to write a disk that is read-only, one at all of it (SCAN_ALL).
 * Whoever waits for one that begins after he asked needs none of his own. */
#include "pool/pool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/config.h"
#include "core/error.h"
#include "core/log.h"
#include "core/thread.h"
#include "cache.h"
#include "internal.h"
#include "recheck.h"
#include "refresh.h"
#include "disk/tunables.h"

/* ---- Looking ------------------------------------------------------------------ */

/* False with ERROR: what is there now cannot be told. */
static bool look_if_due(struct disk_pool *pool, enum scan_extent extent, GError **error)
{
	uint64_t asked = pool->looks[extent];
	bool good;

	LOCK_GUARD(&pool->scanning);
	if (pool->looks[extent] <= asked) {
		g_clear_error(&pool->trouble);
		if (pool_look_is_due_locked(pool, extent, &pool->trouble))
			(void)pool_look_locked(pool, extent, &pool->trouble);
		pool_recheck_locked(pool);
	}
	good = !pool->trouble;
	if (!good)
		g_propagate_error(error, g_error_copy(pool->trouble));
	return good;
}

/* ---- What is shown ------------------------------------------------------------ */

struct disk *disk_pool_find(struct disk_pool *pool, const char *name)
{
	struct disk *disk;

	LOCK_GUARD(&pool->lock);
	disk = g_hash_table_lookup(pool->disks, name);
	if (disk)
		disk_ref(disk);
	return disk;
}

/* A disk whose file cannot be looked at is there: opening it says what is wrong. */
static bool is_there(struct disk *disk)
{
	g_autoptr(GPtrArray) links = NULL;

	if (disk->open || disk->unsettled || disk->forked)
		return true;
	links = disk_get_links(disk);
	return chain_link_is_there(links->pdata[0], NULL) != ANSWER_NO;
}

static struct disk *find_if_there(struct disk_pool *pool, const char *name)
{
	struct disk *disk = disk_pool_find(pool, name);

	if (!disk || is_there(disk))
		return disk;
	disk_unref(disk);
	return NULL;
}

struct disk *disk_pool_lookup(struct disk_pool *pool, const char *name, GError **error)
{
	struct disk *disk = find_if_there(pool, name);

	if (disk && (disk->open || !disk->unsettled))
		return disk;
	disk_unref(disk);
	if (!look_if_due(pool, SCAN_NEW, error))
		return NULL;
	disk = find_if_there(pool, name);
	if (!disk)
		error_set(error, ENOENT, "%s: is not a disk of this pool", name);
	return disk;
}

bool disk_pool_shows(struct disk_pool *pool, const struct disk *disk)
{
	LOCK_GUARD(&pool->lock);
	return g_hash_table_lookup(pool->disks, disk->name) == disk;
}

static gint compare_names(gconstpointer a, gconstpointer b)
{
	const struct disk *const *first = a;
	const struct disk *const *second = b;

	return strcmp((*first)->name, (*second)->name);
}

GPtrArray *disk_pool_shown(struct disk_pool *pool)
{
	GPtrArray *list = g_ptr_array_new_with_free_func((GDestroyNotify)disk_unref);
	GHashTableIter iter;
	gpointer disk;

	lock_take(&pool->lock);
	g_hash_table_iter_init(&iter, pool->disks);
	while (g_hash_table_iter_next(&iter, NULL, &disk))
		g_ptr_array_add(list, disk_ref(disk));
	lock_let_go(&pool->lock);
	g_ptr_array_sort(list, compare_names);
	return list;
}

void disk_pool_look(struct disk_pool *pool)
{
	g_autoptr(GError) error = NULL;

	if (!look_if_due(pool, SCAN_ALL, &error))
		log_warning_limited(disk_pool_path(pool), "look", "%s", error->message);
}

/* ---- With patience ------------------------------------------------------------- */

/* One thread for all who ask. Whoever asks while it looks is answered by a look that
 * has begun after that. */
static void *answer_main(void *opaque)
{
	struct disk_pool *pool = opaque;

	LOCK_GUARD(&pool->lock);
	while (pool->answered < pool->asked) {
		uint64_t asked = pool->asked;

		lock_let_go(&pool->lock);
		disk_pool_look(pool);
		lock_take(&pool->lock);
		pool->answered = asked;
		condition_broadcast(&pool->told);
	}
	pool->answering = false;
	condition_broadcast(&pool->told);
	return NULL;
}

void disk_pool_look_for_a_while(struct disk_pool *pool)
{
	uint64_t until_ns = loop_now_ns() + CHAIN_PATIENCE_NS, asked;
	bool begin;

	thread_assert_may_wait();
	lock_take(&pool->lock);
	asked = ++pool->asked;
	begin = !pool->answering;
	pool->answering = true;
	lock_let_go(&pool->lock);
	if (begin && thread_spawn(NULL, "leafdisk-look", THREAD_WAITER, answer_main, pool) < 0)
		answer_main(pool);
	LOCK_GUARD(&pool->lock);
	while (pool->answered < asked && lock_wait_until(&pool->lock, &pool->told, until_ns))
		;
}

void pool_await_look(struct disk_pool *pool)
{
	LOCK_GUARD(&pool->lock);
	while (pool->answering)
		lock_wait(&pool->lock, &pool->told);
}

char *disk_pool_broken(struct disk_pool *pool)
{
	char *broken;

	LOCK_GUARD(&pool->lock);
	broken = g_strdup(pool->broken);
	return broken;
}

char *disk_pool_foreign(struct disk_pool *pool)
{
	LOCK_GUARD(&pool->lock);
	return g_strdup(pool->foreign);
}

/* ---- The rest ----------------------------------------------------------------- */

void disk_pool_get_tunables(struct disk_pool *pool, struct disk_tunables *tunables)
{
	tunables_get(pool->tunables, tunables);
}

bool disk_pool_set_tunable(struct disk_pool *pool, const char *key, const char *value, GError **error)
{
	bool good = tunables_set(pool->tunables, key, value, error);

	if (good && pool->pool_cache)
		pool_cache_tune(pool->pool_cache);
	return good;
}

const char *disk_pool_path(const struct disk_pool *pool)
{
	return pool_place(pool)->path;
}

int disk_pool_stat(struct disk_pool *pool, struct stat *st)
{
	int result;

	pool->lookers++;
	result = fstat(pool_place(pool)->fd, st) < 0 ? -errno : 0;
	pool->lookers--;
	if (result < 0)
		return result;
	LOCK_GUARD(&pool->lock);
	pool->seen = *st;
	pool->has_seen = true;
	return 0;
}

bool disk_pool_recall_stat(struct disk_pool *pool, struct stat *st)
{
	LOCK_GUARD(&pool->lock);
	*st = pool->seen;
	return pool->has_seen;
}

bool disk_pool_is_looked_at(struct disk_pool *pool)
{
	return pool->lookers > 0;
}

void disk_pool_watch_room(struct disk_pool *pool)
{
	pool->room = room_watch(disk_pool_path(pool));
}

void disk_pool_look_at_room(struct disk_pool *pool)
{
	room_look_soon(pool->room);
}

bool disk_pool_recall_room(struct disk_pool *pool, uint64_t *size_bytes, uint64_t *free_bytes)
{
	return room_recall(pool->room, size_bytes, free_bytes);
}

int disk_pool_statvfs(struct disk_pool *pool, struct statvfs *st)
{
	return fstatvfs(pool_place(pool)->fd, st) < 0 ? -errno : 0;
}
