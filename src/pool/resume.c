/* What an earlier mount left in the cache: images that nobody has opened since the mount
 * began are opened, so that they get it.
 *
 * One that cannot be opened now (locked, damaged, its store is away, it is not in the
 * pool) is tried again, more and more seldom, by a thread that lasts as long as there is
 * one. Each try has a thread of its own, of which the stores share TRIES_MAX by the rule of
 * core/shares.h: a store that hangs keeps its images alone. The mount waits for its first
 * tries, but for none that hangs. Why an image cannot be opened is in its disk's state, and
 * once in the log. */
#include "cache/layer.h"
#include "core/error.h"
#include "core/log.h"
#include "core/shares.h"
#include "core/thread.h"
#include "core/time.h"
#include "internal.h"

#define RETRY_FIRST_NS NS_PER_S
#define RETRY_LONGEST_NS (30 * NS_PER_S)
#define TRIES_MAX 32

/* ---- One image --------------------------------------------------------------- */

struct
try {
	struct disk_pool *pool;
	struct disk *disk;
	uint64_t bytes; /* of its changes */
	dev_t store;
	uint64_t begun_ns;
	struct list link;
};

static struct try *try_new(struct disk_pool *pool, struct disk *disk, uint64_t bytes)
{
	struct try *try = g_new(struct try, 1);

	*try = (struct try){.pool = pool, .disk = disk_ref(disk), .bytes = bytes};
	list_init(&try->link);
	return try;
}

static void try_free(struct try *try)
{
	disk_unref(try->disk);
	g_free(try);
}

/* The chain stays open while something is dirty. */
static void try_open(const struct try *try)
{
	g_autofree char *size = config_format_size(try->bytes);
	g_autoptr(GError) error = NULL;

	if (disk_open_dirty(try->disk, &error) == 0) {
		(void)disk_close(try->disk);
		(void)disk_note_left(try->disk, NULL);
	} else if (disk_note_left(try->disk, error->message)) {
		log_warning("the cache has %s of changes that stay there for now: %s; it is tried again", size,
			    error->message);
	}
}

static void *try_main(void *opaque)
{
	struct try *try = opaque;
	struct disk_pool *pool = try->pool;

	try_open(try);
	try->disk->resuming = false;
	disk_unref(try->disk);
	lock_take(&pool->lock);
	list_remove(&try->link);
	condition_broadcast(&pool->resume.changed);
	lock_let_go(&pool->lock);
	g_free(try);
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

/* False: its store hangs. */
static bool begin_try(struct try *try)
{
	g_autoptr(GPtrArray) links = disk_get_links(try->disk);
	struct disk_pool *pool = try->pool;
	bool begins;

	try->store = ((const struct chain_link *)links->pdata[0])->store;
	LOCK_GUARD(&pool->lock);
	while (!(begins = has_share_locked(pool, try->store)) && await_try_relock(pool))
		;
	begins &= !pool->resume.stop;
	if (!begins)
		return false;
	try->begun_ns = loop_now_ns();
	list_prepend(&pool->resume.tries, &try->link);
	return true;
}

static void try_apart(struct try *try)
{
	if (try->disk->resuming || !begin_try(try)) {
		try_free(try);
		return;
	}
	try->disk->resuming = true;
	if (thread_spawn(NULL, "leafdisk-resume", THREAD_WAITER, try_main, try) < 0)
		try_main(try);
}

/* ---- All of them ------------------------------------------------------------- */

struct pass {
	struct disk_pool *pool;
	GPtrArray *disks;
	void (*each)(struct try *try); /* which frees it */
	void (*nameless)(const struct disk_pool *pool, const struct cache_layer_dirty *dirty);
	unsigned left; /* that are not open */
};

static void look_at(void *opaque, const struct cache_layer_dirty *dirty)
{
	struct pass *pass = opaque;
	struct disk *disk = pool_find_dirty(pass->disks, dirty);

	pass->left++;
	if (disk)
		pass->each(try_new(pass->pool, disk, dirty->dirty_blocks << BLOCK_SHIFT));
	else if (pass->nameless)
		pass->nameless(pass->pool, dirty);
}

static bool look_at_all(struct disk_pool *pool, void (*each)(struct try *try),
			void (*nameless)(const struct disk_pool *pool, const struct cache_layer_dirty *dirty))
{
	g_autoptr(GPtrArray) disks = disk_pool_shown(pool);
	struct pass pass = {.pool = pool, .disks = disks, .each = each, .nameless = nameless};

	cache_layer_foreach_dirty(pool->pool_cache->cache, false, look_at, &pass);
	return pass.left > 0;
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
		left = look_at_all(pool, try_apart, NULL);
		pause_ns = MIN(pause_ns * 2, RETRY_LONGEST_NS);
		lock_take(&pool->lock);
	}
	pool->resume.running = false;
	condition_broadcast(&pool->resume.changed);
	lock_let_go(&pool->lock);
	return NULL;
}

/* ---- The beginning and the end of a mount ------------------------------------- */

static void warn_of_nameless(const struct disk_pool *pool, const struct cache_layer_dirty *dirty)
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

void disk_pool_resume(struct disk_pool *pool)
{
	if (!pool->pool_cache)
		return;
	(void)look_at_all(pool, try_apart, warn_of_nameless);
	lock_take(&pool->lock);
	while (await_try_relock(pool))
		;
	lock_let_go(&pool->lock);
	cache_layer_foreach_dirty(pool->pool_cache->cache, true, warn_of_orphan, NULL);
	if (!is_left(pool))
		return;
	pool->resume.running = true;
	if (thread_spawn(NULL, "leafdisk-resume", THREAD_WAITER, retry_main, pool) < 0)
		pool->resume.running = false;
}

void pool_stop_resuming(struct disk_pool *pool)
{
	LOCK_GUARD(&pool->lock);
	pool->resume.stop = true;
	condition_broadcast(&pool->resume.changed);
	while (pool->resume.running || !list_is_empty(&pool->resume.tries))
		lock_wait(&pool->lock, &pool->resume.changed);
}
