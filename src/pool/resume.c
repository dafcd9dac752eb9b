/* What an earlier mount left in the cache: images that nobody has opened since the mount
 * began are opened, so that they get it.
 *
 * One that cannot be opened now (locked, damaged, its store is away, it is not in the
 * pool) is tried again, more and more seldom, by a thread that lasts as long as there is
 * one. Each try has a thread of its own, of which the stores share TRIES_MAX by the rule of
 * core/shares.h: a store that hangs keeps its images alone. The mount waits for its first
 * tries, but for none that hangs; where there is no thread for one, that thread makes it, one
 * after the other. Why an image cannot be opened is in its disk's state, and
 * once in the log. */
#include "cache/layer.h"
#include "core/error.h"
#include "core/log.h"
#include "core/shares.h"
#include "core/thread.h"
#include "core/time.h"
#include "dirty.h"
#include "internal.h"
#include "layer/share.h"

#define RETRY_FIRST_NS NS_PER_S
#define RETRY_LONGEST_NS (30 * NS_PER_S)
#define TRIES_MAX 32

/* ---- One image --------------------------------------------------------------- */

struct
try {
	struct disk_pool *pool;
	struct disk *disk;
	void (*work)(struct disk * disk, void *opaque);
	void *opaque;
	dev_t store;
	uint64_t begun_ns;
	struct list link;
};

static struct try *try_new(struct disk_pool *pool, struct disk *disk, void (*work)(struct disk *disk, void *opaque),
			   void *opaque)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	struct try *try = g_new(struct try, 1);

	*try = (struct try){
		.pool = pool,
		.disk = disk_ref(disk),
		.work = work,
		.opaque = opaque,
		.store = ((const struct chain_link *)links->pdata[0])->store,
	};
	list_init(&try->link);
	return try;
}

static bool open_dirty(struct disk *disk, GError **error)
{
	if (disk->keeper)
		return disk_keep(disk, error);
	if (disk_open_dirty(disk, error) < 0)
		return false;
	(void)disk_close(disk);
	return true;
}

/* The chain stays open while something is dirty. */
static void open_left(struct disk *disk, void *opaque)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	g_autofree char *size =
		config_format_size(share_left_as_found(links->pdata[0], disk->pool_cache) << BLOCK_SHIFT);
	g_autoptr(GError) error = NULL;

	(void)opaque;
	if (open_dirty(disk, &error)) {
		(void)disk_note_left(disk, NULL);
	} else if (disk_note_left(disk, error->message)) {
		log_warning("the cache has %s of changes that stay there for now: %s; it is tried again", size,
			    error->message);
	}
}

/* Its disk is free for another. */
static void end_try(struct try *try)
{
	struct disk_pool *pool = try->pool;

	lock_take(&pool->lock);
	try->disk->tried = false;
	lock_let_go(&pool->lock);
	disk_unref(try->disk);
	lock_take(&pool->lock);
	list_remove(&try->link);
	condition_broadcast(&pool->resume.changed);
	lock_let_go(&pool->lock);
	g_free(try);
}

static void *try_main(void *opaque)
{
	struct try *try = opaque;

	try->work(try->disk, try->opaque);
	end_try(try);
	return NULL;
}

static bool has_share_locked(struct disk_pool *pool, dev_t store)
{
	unsigned beside = 0, all = 0;

	lock_assert_mine(&pool->lock);
	list_foreach(node, &pool->resume.tries)
	{
		all++;
		beside += container_of(node, struct try, link)->store == store;
	}
	return shares_allow(beside, all, TRIES_MAX);
}

/* For the end of a try, unless all that are under way have hung for a while. False: they
 * have, or there are to be no more. */
static bool await_try_relock(struct disk_pool *pool)
{
	struct list *last = list_first(&pool->resume.tries);
	uint64_t until_ns;

	lock_assert_mine(&pool->lock);
	if (!last || pool->resume.stop)
		return false;
	until_ns = container_of(last, struct try, link)->begun_ns + CHAIN_PATIENCE_NS;
	return lock_wait_until(&pool->lock, &pool->resume.changed, until_ns) && !pool->resume.stop;
}

/* False: its store hangs, or another of its disk is under way. */
static bool begin_try(struct try *try)
{
	struct disk_pool *pool = try->pool;
	bool begins;

	LOCK_GUARD(&pool->lock);
	if (try->disk->tried)
		return false;
	while (!(begins = has_share_locked(pool, try->store)) && await_try_relock(pool))
		;
	begins &= !pool->resume.stop && !try->disk->tried;
	if (!begins)
		return false;
	try->begun_ns = loop_now_ns();
	try->disk->tried = true;
	list_prepend(&pool->resume.tries, &try->link);
	return true;
}

bool pool_try(struct disk_pool *pool, struct disk *disk, bool here, void (*work)(struct disk *disk, void *opaque),
	      void *opaque)
{
	struct try *try = try_new(pool, disk, work, opaque);
	bool begun = begin_try(try);

	if (begun && thread_spawn(NULL, "leafdisk-try", THREAD_WAITER, try_main, try) == 0)
		return true;
	if (begun && here) {
		try_main(try);
		return true;
	}
	if (begun) {
		end_try(try);
		return false;
	}
	disk_unref(try->disk);
	g_free(try);
	return false;
}

bool pool_try_left(struct disk_pool *pool, struct disk *disk, bool here)
{
	return pool_try(pool, disk, here, open_left, NULL);
}

bool pool_await_try(struct disk_pool *pool, const struct disk *disk, uint64_t until_ns)
{
	LOCK_GUARD(&pool->lock);
	while (disk->tried && lock_wait_until(&pool->lock, &pool->resume.changed, until_ns))
		;
	return !disk->tried;
}

/* ---- All of them ------------------------------------------------------------- */

struct pass {
	struct disk_pool *pool;
	GPtrArray *disks;
	bool here; /* where there is no thread for one */
	void (*nameless)(struct disk_pool *pool, const struct cache_layer_dirty *dirty);
	unsigned left; /* that are not open */
};

static void look_at(void *opaque, const struct cache_layer_dirty *dirty)
{
	struct pass *pass = opaque;
	struct disk *disk = pool_find_or_keep(pass->pool, pass->disks, dirty);

	pass->left++;
	if (disk)
		(void)pool_try_left(pass->pool, disk, pass->here);
	else if (pass->nameless)
		pass->nameless(pass->pool, dirty);
	disk_unref(disk);
}

static bool look_at_all(struct disk_pool *pool, bool here,
			void (*nameless)(struct disk_pool *pool, const struct cache_layer_dirty *dirty))
{
	g_autoptr(GPtrArray) disks = disk_pool_shown(pool);
	struct pass pass = {.pool = pool, .disks = disks, .here = here, .nameless = nameless};

	cache_layer_foreach_dirty(pool->pool_cache->cache, false, look_at, &pass);
	return pass.left > 0;
}

static void keep(void *opaque, const struct cache_layer_dirty *dirty)
{
	struct pass *pass = opaque;
	struct disk *keeper = pool_find_or_keep(pass->pool, pass->disks, dirty);

	if (keeper && keeper->keeper && pool_try_left(pass->pool, keeper, true))
		(void)pool_await_try(pass->pool, keeper, loop_now_ns() + CHAIN_PATIENCE_NS);
	disk_unref(keeper);
}

void pool_keep_sealed(struct disk_pool *pool)
{
	g_autoptr(GPtrArray) disks = disk_pool_shown(pool);
	struct pass pass = {.pool = pool, .disks = disks};

	cache_layer_foreach_dirty(pool->pool_cache->cache, false, keep, &pass);
}

/* False: the thread is to end. */
static bool pause_relock(struct disk_pool *pool, uint64_t until_ns)
{
	lock_assert_mine(&pool->lock);
	while (!pool->resume.stop && lock_wait_until(&pool->lock, &pool->resume.changed, until_ns))
		;
	return !pool->resume.stop;
}

static void *retry_main(void *opaque)
{
	struct disk_pool *pool = opaque;
	uint64_t pause_ns = RETRY_FIRST_NS;
	bool left = true;

	lock_take(&pool->lock);
	while (left && pause_relock(pool, loop_now_ns() + pause_ns)) {
		lock_let_go(&pool->lock);
		disk_pool_look(pool);
		left = look_at_all(pool, true, NULL);
		pause_ns = MIN(pause_ns * 2, RETRY_LONGEST_NS);
		lock_take(&pool->lock);
	}
	pool->resume.running = false;
	condition_broadcast(&pool->resume.changed);
	lock_let_go(&pool->lock);
	return NULL;
}

/* ---- The beginning and the end of a mount ------------------------------------- */

static void warn_of_nameless(struct disk_pool *pool, const struct cache_layer_dirty *dirty)
{
	g_autofree char *size = config_format_size(dirty->dirty_blocks << BLOCK_SHIFT);
	g_autofree char *text = pool_nameless_text(pool, dirty);

	log_warning("the cache has %s of changes that stay there: %s", size, text);
}

static void warn_of_orphan(void *opaque, const struct cache_layer_dirty *dirty)
{
	g_autofree char *size = config_format_size(dirty->dirty_blocks << BLOCK_SHIFT);

	(void)opaque;
	log_warning("the cache has %s of changes of %s, which are not written back: %s; leafctl cache dump saves "
		    "them, leafctl cache adopt brings them to it, and leafctl cache purge forgets them",
		    size, dirty->name, dirty->orphan_text);
}

static void note_left(void *opaque, const struct cache_layer_dirty *dirty)
{
	bool *left = opaque;

	(void)dirty;
	*left = true;
}

static bool is_left(struct disk_pool *pool)
{
	bool left = false;

	cache_layer_foreach_dirty(pool->pool_cache->cache, false, note_left, &left);
	return left;
}

/* Before anything is tried: there is nothing to be waited for where it fails. */
static bool start_retrying(struct disk_pool *pool, GError **error)
{
	int result;

	pool->resume.running = true;
	result = thread_spawn(NULL, "leafdisk-resume", THREAD_WAITER, retry_main, pool);
	if (result == 0)
		return true;
	pool->resume.running = false;
	return error_set_errno(error, -result, "cannot start the thread that has written back what the cache has");
}

bool disk_pool_resume(struct disk_pool *pool, GError **error)
{
	if (!pool->pool_cache)
		return true;
	if (is_left(pool) && !start_retrying(pool, error))
		return false;
	(void)look_at_all(pool, false, warn_of_nameless);
	lock_take(&pool->lock);
	while (await_try_relock(pool))
		;
	lock_let_go(&pool->lock);
	cache_layer_foreach_dirty(pool->pool_cache->cache, true, warn_of_orphan, NULL);
	return true;
}

void pool_stop_resuming(struct disk_pool *pool)
{
	LOCK_GUARD(&pool->lock);
	pool->resume.stop = true;
	condition_broadcast(&pool->resume.changed);
	while (pool->resume.running || !list_is_empty(&pool->resume.tries))
		lock_wait(&pool->lock, &pool->resume.changed);
}
