/* Disks: opening and closing their chain.
 *
 * A disk is closed most of its life: 2,000 idle ones cost their names. The
 * first open opens the leaf (writable when the disk is) and gets the stack
 * below it; the last close commits and lets go of both. open_lock is held
 * meanwhile, so opens and closes of one disk follow each other. Whoever only
 * looks at a disk does not wait for them. */
#include <errno.h>

#include "apart.h"
#include "cache/layer.h"
#include "count.h"
#include "elsewhere.h"
#include "core/error.h"
#include "core/lock.h"
#include "core/log.h"
#include "core/thread.h"
#include "core/verdict.h"
#include "image/children.h"
#include "disk/keep.h"
#include "disk/keeper.h"
#include "disk/object.h"
#include "layer/claim.h"
#include "layer/logs.h"
#include "layer/parent.h"
#include "layer/seal.h"
#include "layer/share.h"
#include "disk/route.h"
#include "disk/standing.h"
#include "core/workers.h"

#define DISCARD_RETRY_US (5 * 1000)

static bool resolve_again(struct disk *disk, GError **error)
{
	GPtrArray *links = disk_resolve(disk, error);
	GPtrArray *old;

	if (!links)
		return false;
	lock_take(&disk->lock);
	old = disk->links;
	disk->links = links;
	layer_set_link(disk->leaf, links->pdata[0]);
	lock_let_go(&disk->lock);
	g_ptr_array_unref(old);
	return true;
}

static bool open_keepers(struct disk *disk, const GPtrArray *links, guint first, GError **error);

/* What is dirty below goes first: the highest that is, after which the next goes. */
void disk_go_after_sealed(struct disk *disk)
{
	struct layer *after = NULL;

	for (unsigned i = 0; i < stack_depth(disk->stack) && !after; i++)
		if (stack_layer(disk->stack, i)->sealed)
			after = stack_layer(disk->stack, i);
	layer_go_after(disk->leaf, after);
}

static struct stack *get_stack(struct disk *disk, const GPtrArray *links, guint first, GError **error)
{
	return open_keepers(disk, links, first, error)
		       ? stack_get(links, first, disk->pool_cache, disk_uses_cache(disk), error)
		       : NULL;
}

struct stack *disk_open_stack(struct disk *disk, const GPtrArray *links, GError **error)
{
	return get_stack(disk, links, 0, error);
}

static bool open_stack(struct disk *disk, guint first, GError **error)
{
	if (disk->links->len <= first)
		return true;
	disk->stack = get_stack(disk, disk->links, first, error);
	if (!disk->stack)
		return false;
	disk_go_after_sealed(disk);
	standing_begin(disk);
	return true;
}

/* Every image is below the log layers, and none is written. */
static bool open_stack_of_logs(struct disk *disk, GError **error)
{
	if (!open_stack(disk, 0, error))
		return false;
	disk->stack = logs_stack(disk->logs, disk->stack);
	return true;
}

/* Below an ephemeral one's log layers. */
static struct image *uppermost_image(const struct disk *disk)
{
	return stack_layer(disk->stack, logs_depth(disk->logs))->image;
}

static void close_stack(struct disk *disk)
{
	standing_end(disk);
	stack_put(disk->stack);
	disk->stack = NULL;
}

static bool open_ephemeral(struct disk *disk, GError **error)
{
	bool first = !disk->leaf->cached;
	uint64_t stamp = parent_stamp_of(disk->links, 0);

	if (first && share_left_of_link(disk->leaf->link, disk->pool_cache))
		return error_set(
			error, EBUSY,
			"%s: the cache has changes of it that are not in the pool yet, which an ephemeral disk "
			"would not show; mount it in another mode first, or run leafctl cache drain",
			disk->name);
	if (disk->given && disk->made_on != stamp)
		return error_set(
			error, ESTALE,
			"%s: has changes, which only this mount has, of an image that is another one now, or stands "
			"on another one; it can be opened in the next mount, without them",
			disk->name);
	if (!open_stack_of_logs(disk, error))
		return false;
	if (!elsewhere_allows_image(disk, uppermost_image(disk), error) ||
	    (first && !share_open_pinned(disk->leaf, error))) {
		close_stack(disk);
		return false;
	}
	if (!disk->given)
		disk->size_bytes = stack_size_bytes(disk->stack);
	disk->made_on = stamp;
	disk->stays = true;
	return true;
}

/* Even an open for reading finishes what a crash has interrupted, unless the
 * image is another's. */
static bool open_leaf(struct disk *disk, bool write, GError **error)
{
	g_autoptr(GError) inner = NULL;
	struct layer *leaf = disk->leaf;
	const char *children = leaf->link->info.children;
	bool writable = disk->writable && disk->old != OLD_SHOWN && (disk->keeper || !children);
	bool ours = !writable || claim_allows(leaf, &inner);
	unsigned flags = (writable && ours ? IMAGE_WRITABLE | IMAGE_BEGIN_LATER : 0) |
			 (disk->unlocked ? IMAGE_NO_LOCK : 0) | (disk->keeper ? IMAGE_SEALED : 0);

	if (write && children)
		return image_children_refuse(leaf->link->path, children, error);
	if (ours || (!write && share_left(leaf) == 0)) {
		g_clear_error(&inner);
		(void)layer_open_image(leaf, flags, &inner);
	}
	if (!leaf->image && disk->writable && !write &&
	    error_class_of(STORE_OPEN, error_to_errno(inner)) == ERROR_READ_ONLY) {
		g_clear_error(&inner);
		(void)layer_open_image(leaf, 0, &inner);
	}
	if (!leaf->image) {
		if (ours)
			claim_explain_lock(leaf, &inner);
		g_propagate_error(error, g_steal_pointer(&inner));
	}
	return leaf->image;
}

/* The owner's claim is given up, and the stamp taken, of an image that is all
 * written and still locked. */
static int close_leaf(struct disk *disk)
{
	if (disk->leaf->sealed) {
		route_close_sealed(disk);
		return 0;
	}
	route_close(disk);
	return layer_close_image(disk->leaf);
}

/* The claim of a leaf that was put on another may not have come to the owner record before it was closed, with nothing
 * dirty. */
static bool is_recorded(struct layer *leaf, GError **error)
{
	enum answer recorded = claim_record(leaf, true, error);

	if (recorded == ANSWER_NO)
		error_set(error, EBUSY, "%s: was taken over by another owner meanwhile", leaf->link->path);
	return recorded == ANSWER_YES;
}

/* The key is taken under the image's lock, and before anything is written. */
static bool open_shared(struct disk *disk, bool write, GError **error)
{
	if (!open_stack(disk, 1, error))
		return false;
	if (!open_leaf(disk, write, error)) {
		close_stack(disk);
		return false;
	}
	disk->size_bytes = disk->leaf->image->size_bytes;
	if ((write || elsewhere_allows_image(disk, disk->leaf->image, error)) && is_recorded(disk->leaf, error) &&
	    route_open(disk, error))
		return true;
	(void)close_leaf(disk);
	close_stack(disk);
	return false;
}

/* ---- Another disk ---------------------------------------------------------------- */

/* What an ephemeral one is made of. */
struct made_of {
	struct layer *leaf;
	struct stack *stack;
	GPtrArray *links;
	char *path;
	enum disk_mode mode;
	enum disk_old old;
	const struct route *route;
};

static void put_leaf(struct disk *disk, struct layer *leaf, GPtrArray *links, struct stack *stack, char *path)
{
	LOCK_GUARD(&disk->pool_cache->backlogs.lock);
	lock_take(&disk->lock);
	disk->leaf = leaf;
	disk->links = links;
	disk->stack = stack;
	disk->path = path;
	lock_let_go(&disk->lock);
}

static void take_back(struct disk *disk, const struct made_of *before)
{
	struct layer *leaf = disk->leaf;
	GPtrArray *links = disk->links;
	char *path = disk->path;

	put_leaf(disk, before->leaf, before->links, before->stack, before->path);
	disk->mode = before->mode;
	disk->old = before->old;
	disk->route = before->route;
	standing_begin(disk);
	layer_unref(leaf);
	g_ptr_array_unref(links);
	g_free(path);
}

static void let_go_of(struct disk *disk, const struct made_of *before)
{
	struct logs *logs = disk->logs;
	GPtrArray *saved = disk->saved;

	lock_take(&disk->lock);
	disk->logs = NULL;
	disk->saved = NULL;
	lock_let_go(&disk->lock);
	disk->given = disk->stays = false;
	disk->former_path = before->path;
	stack_put(before->stack);
	layer_unref(before->leaf);
	logs_unref(logs);
	g_clear_pointer(&saved, g_ptr_array_unref);
	g_ptr_array_unref(before->links);
}

static bool open_in_its_place(struct disk *disk, GError **error)
{
	if (!open_shared(disk, true, error))
		return false;
	if (route_begin_writing(disk, error))
		return true;
	(void)close_leaf(disk);
	close_stack(disk);
	return false;
}

bool disk_become(struct disk *disk, GPtrArray *links, enum disk_mode mode, GError **error)
{
	const struct made_of before = {disk->leaf, disk->stack, disk->links, disk->path,
				       disk->mode, disk->old,	disk->route};
	uint64_t size_bytes = disk->size_bytes;

	g_assert(!disk->former_path);
	standing_end(disk);
	put_leaf(disk, disk_new_leaf(disk, links->pdata[0]), links, NULL,
		 g_strdup(((struct chain_link *)links->pdata[0])->path));
	disk->mode = mode;
	disk->old = OLD_REFUSED;
	disk->route = &route_direct;
	if (!open_in_its_place(disk, error)) {
		take_back(disk, &before);
		disk->size_bytes = size_bytes;
		return false;
	}
	let_go_of(disk, &before);
	return true;
}

/* ---- What is dirty below it ----------------------------------------------------- */

/* Nobody else has KEEPER: its lock is free, and taken out of order. */
static bool open_keeper(struct disk *keeper, const struct chain_link *child, GError **error)
{
	bool mine = lock_try(&keeper->open_lock);

	g_assert(mine);
	keeper->open = open_shared(keeper, false, error);
	if (keeper->open)
		seal_opened(keeper->leaf, child);
	keeper_tell(keeper);
	disk_close_unused(keeper);
	lock_let_go(&keeper->open_lock);
	return keeper->leaf->sealed;
}

static bool keep(struct disk *keeper, const struct chain_link *child, GError **error)
{
	return !keeper_enter(keeper) || open_keeper(keeper, child, error);
}

bool disk_keep(struct disk *keeper, GError **error)
{
	thread_assert_may_wait();
	return resolve_again(keeper, error) && keep(keeper, NULL, error);
}

static bool keep_below(struct disk *disk, const GPtrArray *links, guint i, GError **error)
{
	struct disk *keeper = keeper_new_at(disk, links, i, DISK_MODE_WRITEBACK);
	bool good = keep(keeper, i ? links->pdata[i - 1] : NULL, error);

	disk_unref(keeper);
	return good;
}

/* The lowest first, on which the others are opened. */
static bool open_keepers(struct disk *disk, const GPtrArray *links, guint first, GError **error)
{
	for (guint i = links->len; i-- > first;) {
		const struct chain_link *link = links->pdata[i];

		if (!elsewhere_allows_below(disk, link, error))
			return false;
		if (disk->writable && chain_is_sealed_name(link->path) &&
		    share_left_of_link(link, disk->pool_cache) > 0 && !keep_below(disk, links, i, error))
			return false;
	}
	return true;
}

/* ---- Opening -------------------------------------------------------------------- */

static bool open_chain(struct disk *disk, bool write, GError **error)
{
	if (disk->unsettled)
		return error_set(error, EIO,
				 "%s: what was made for a snapshot of it that failed cannot be removed yet; it can be "
				 "opened once its store works again",
				 disk->name);
	if (disk->ended)
		return error_set(error, ENOENT, "%s: is removed", disk->name);
	elsewhere_begin(disk, write);
	if (!resolve_again(disk, error) || !elsewhere_allows(disk, error))
		return false;
	if (disk->mode != DISK_MODE_EPHEMERAL)
		return open_shared(disk, write, error);
	disk->route = &route_ephemeral;
	return open_ephemeral(disk, error);
}

static bool open_chain_once(struct disk *disk, bool write, GError **error)
{
	if (!disk->lanes)
		disk->lanes = lanes_new();
	if (!disk->count)
		disk->count = count_new();
	if (!disk->open)
		disk->open = open_chain(disk, write, error);
	return disk->open;
}

/* What an ephemeral disk was given stays until the unmount. */
int disk_close_chain(struct disk *disk)
{
	int result = disk->route == &route_ephemeral ? 0 : close_leaf(disk);

	close_stack(disk);
	disk->open = false;
	return result;
}

/* A sealed layer that is not complete has its image locked, and tells it of its children when it is. */
static bool is_told(void *opaque, guint index)
{
	struct disk *disk = opaque;
	bool below = disk->stack && index <= stack_depth(disk->stack);
	struct layer *layer = below ? stack_layer(disk->stack, index - 1) : NULL;
	const struct chain_link *child = disk->links->pdata[index - 1];

	return layer && layer->sealed && seal_add_child(layer, child->info.uuid, child->real);
}

/* Behind the gate: others may have it open for reading. Whoever opens it after that waits for no request of others. */
static bool begin_writing(struct disk *disk, GError **error)
{
	bool good;

	disk->given = disk->route == &route_ephemeral;
	if (route_is_begun(disk))
		return true;
	if (disk->leaf->image && !disk->leaf->image->begun)
		parent_mark_chain(disk->links, is_told, disk);
	gate_close(&disk->gate);
	if (route_identify(disk))
		(void)resolve_again(disk, NULL);
	good = route_begin_writing(disk, error);
	gate_open(&disk->gate);
	return good;
}

/* While something is dirty the chain stays open; the migrator closes it then. */
static int close_or_leave(struct disk *disk)
{
	if (!backlog_is_needed(disk->leaf) && !backlog_is_owed(disk->leaf))
		return disk_close_chain(disk);
	if (disk->route == &route_writeback)
		cache_end_epoch(disk->leaf->cached);
	pool_cache_kick(disk->pool_cache);
	return 0;
}

void disk_close_unused(struct disk *disk)
{
	bool unused = disk->opens == 0 && disk->open && !backlog_is_needed(disk->leaf);
	int result = unused ? disk_close_chain(disk) : 0;

	if (result < 0)
		log_disk(EVENT_ERROR, disk->name, "%s: cannot be closed: %s", disk->name, g_strerror(-result));
	if (disk->keeper && !disk->open && keeper_take_off(disk))
		disk_unref(disk);
}

/* The migrator has the lock for a moment only, and who asks may have one that is taken after it. */
static bool try_discard(struct disk *keeper)
{
	if (!lock_try(&keeper->open_lock))
		return false;
	if (keeper->open) {
		route_discard_sealed(keeper);
		close_stack(keeper);
		keeper->open = false;
	}
	lock_let_go(&keeper->open_lock);
	return true;
}

bool disk_discard(struct disk *keeper, bool (*go_on)(void *opaque), void *opaque)
{
	struct layer *leaf = keeper->leaf;
	bool done;

	thread_assert_may_wait();
	if (!backlog_hold(leaf, go_on, opaque))
		return false;
	while (!(done = try_discard(keeper)) && go_on(opaque))
		g_usleep(DISCARD_RETRY_US);
	backlog_let_go(leaf);
	if (done && keeper_take_off(keeper))
		disk_unref(keeper);
	return done;
}

static void count_open(struct disk *disk)
{
	disk->opens++;
	disk->was_opened = true;
}

int disk_open(struct disk *disk, bool write, GError **error)
{
	g_autoptr(GError) inner = NULL;
	int result = 0;

	thread_assert_may_wait();
	lock_take(&disk->open_lock);
	if (write && !disk->writable)
		error_set(
			&inner, EROFS,
			"%s: is read-only: another image depends on it, its image is outside the pool, or the pool is "
			"mounted read-only",
			disk->name);
	else if (open_chain_once(disk, write, &inner) && write && !disk->route->takes_writes(disk))
		error_set(&inner, EROFS, "%s: was opened read-only, its image cannot be written", disk->name);
	if (!inner && write)
		begin_writing(disk, &inner);
	if (inner && disk->opens == 0 && disk->open)
		(void)close_or_leave(disk);
	if (inner)
		result = error_to_errno(inner);
	else
		count_open(disk);
	lock_let_go(&disk->open_lock);
	if (result == 0)
		log_debug(LOG_DISK, "%s: opened in mode %s", disk->name, disk_mode_name(disk->mode));
	if (inner)
		g_propagate_error(error, g_steal_pointer(&inner));
	return result;
}

int disk_close(struct disk *disk)
{
	int result = 0;

	thread_assert_may_wait();
	LOCK_GUARD(&disk->open_lock);
	log_debug(LOG_DISK, "%s: closing, opened %u times", disk->name, disk->opens);
	if (--disk->opens == 0)
		result = close_or_leave(disk);
	return result;
}

/* ---- The last reference ------------------------------------------------------- */

static void disk_free(struct disk *disk)
{
	if (disk->open && disk->opens == 0)
		(void)disk_close_chain(disk);
	layer_unref(disk->leaf);
	logs_unref(disk->logs);
	g_clear_pointer(&disk->saved, g_ptr_array_unref);
	g_ptr_array_unref(disk->links);
	chain_roots_unref(disk->roots);
	lock_destroy(&disk->open_lock);
	lock_destroy(&disk->lock);
	condition_destroy(&disk->looked);
	gate_clear(&disk->gate);
	g_free(disk->told);
	g_free(disk->left);
	g_free(disk->elsewhere);
	g_free(disk->owner);
	g_free(disk->lanes);
	g_free(disk->count);
	g_free(disk->spelled);
	g_free(disk->path);
	g_free(disk->former_path);
	g_free(disk->name);
	g_free(disk);
}

/* Disks that are being freed in the background, and what goes on with one there. */
static struct {
	struct lock lock;
	struct condition none;
	unsigned count;
} disposals = {.lock = LOCK_INIT(LOCK_RANK_DISPOSALS), .none = CONDITION_INIT};

static void begin_apart(void)
{
	LOCK_GUARD(&disposals.lock);
	disposals.count++;
}

static void end_apart(void)
{
	LOCK_GUARD(&disposals.lock);
	if (--disposals.count == 0)
		condition_broadcast(&disposals.none);
}

static void dispose(struct loop_work *work)
{
	disk_free(container_of(work, struct disk, disposal));
	end_apart();
}

/* Freeing closes what is still open, with flushes: not on a loop. */
void disk_unref(struct disk *disk)
{
	if (!disk || --disk->references)
		return;
	if (thread_may_wait()) {
		disk_free(disk);
		return;
	}
	begin_apart();
	disk->disposal.work = dispose;
	loop_offload_wait_apart(&disk->disposal);
}

void disk_begin_apart(struct disk *disk)
{
	begin_apart();
	disk_ref(disk);
}

void disk_end_apart(struct disk *disk)
{
	disk_unref(disk);
	end_apart();
}

void disk_await_disposals(void)
{
	LOCK_GUARD(&disposals.lock);
	while (disposals.count > 0)
		lock_wait(&disposals.lock, &disposals.none);
}
