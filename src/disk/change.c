/* What running disks are made of is exchanged. */
#include "disk/change.h"

#include <errno.h>
#include <string.h>

#include "cache/writeback.h"
#include "core/error.h"
#include "core/log.h"
#include "core/thread.h"
#include "core/time.h"
#include "disk/keeper.h"
#include "disk/route.h"
#include "disk/standing.h"
#include "layer/claim.h"
#include "layer/layer.h"
#include "layer/map.h"
#include "layer/seal.h"
#include "layer/share.h"

/* How often who has a disk's lock is asked for it. */
#define LOCK_RETRY_US (5 * 1000)
/* Nor a batch. */
#define BATCH_PATIENCE_NS (10 * NS_PER_S)
/* A request in work that a store does not answer is not waited for longer. */
#define GATE_PATIENCE_NS (5 * NS_PER_S)

static bool goes_on(const struct disk_change *change)
{
	return !change->go_on || change->go_on(change->opaque);
}

/* ---- Nobody else changes them ----------------------------------------------------- */

static void let_go(struct disk_change *change, unsigned count)
{
	while (count-- > 0)
		lock_let_go(&change->disks[count]->open_lock);
}

struct patience {
	const struct disk_change *change;
	uint64_t until_ns;
};

static bool is_patient(void *opaque)
{
	const struct patience *patience = opaque;

	return loop_now_ns() < patience->until_ns && goes_on(patience->change);
}

static void let_go_backlogs(struct disk_change *change)
{
	for (guint i = 0; i < change->held->len; i++) {
		backlog_let_go(change->held->pdata[i]);
		layer_unref(change->held->pdata[i]);
	}
	g_clear_pointer(&change->held, g_ptr_array_unref);
}

/* A batch of a leaf asks its owner record, and may put its claim there: what a new leaf's claim is to follow. */
static bool hold_backlogs(struct disk_change *change, GError **error)
{
	struct patience patience = {change, loop_now_ns() + BATCH_PATIENCE_NS};

	change->held = g_ptr_array_new();
	for (unsigned i = 0; i < change->count; i++) {
		struct layer *leaf = change->disks[i]->leaf;

		if (!backlog_hold(leaf, is_patient, &patience)) {
			let_go_backlogs(change);
			return error_set(error, goes_on(change) ? EBUSY : EINTR,
					 "%s: changes are on their way to its image, and the store has no answer yet; "
					 "it runs on as it was, try again",
					 change->disks[i]->name);
		}
		g_ptr_array_add(change->held, layer_ref(leaf));
	}
	return true;
}

/* All or none: whoever has one of them may want another. */
static bool try_all(struct disk_change *change)
{
	for (unsigned i = 0; i < change->count; i++) {
		if (lock_try(&change->disks[i]->open_lock))
			continue;
		let_go(change, i);
		return false;
	}
	return true;
}

static bool is_running(const struct disk *disk, GError **error)
{
	if (!disk->open || disk->refusing || disk->route == &route_failed || !disk->route->takes_writes(disk))
		return error_set(error, EIO, "%s: has failed; its state says why", disk->name);
	return true;
}

static bool take_all(struct disk_change *change, GError **error)
{
	thread_assert_may_wait();
	while (!try_all(change)) {
		if (!goes_on(change))
			return error_set(error, EINTR, "%s: given up while it is being opened, closed or changed",
					 change->disks[0]->name);
		g_usleep(LOCK_RETRY_US);
	}
	return true;
}

bool disk_change_begin(struct disk_change *change, GError **error)
{
	if (!take_all(change, error))
		return false;
	for (unsigned i = 0; i < change->count && !change->may_be_closed; i++)
		if (!is_running(change->disks[i], error)) {
			let_go(change, change->count);
			return false;
		}
	if (!hold_backlogs(change, error)) {
		let_go(change, change->count);
		return false;
	}
	change->keepers = g_new0(struct disk *, change->count);
	return true;
}

bool disk_may_go_back(const struct disk *disk, bool live, uint64_t size_bytes, GError **error)
{
	if (!live)
		return error_set(error, EBUSY,
				 "%s: is open, and who has it open would see another content under its feet; close "
				 "it first, or say --live where the guest knows",
				 disk->name);
	return size_bytes == disk->size_bytes || error_set(error, EBUSY,
							   "%s: is open, and had another size then, %" G_GUINT64_FORMAT
							   " bytes, which no guest would notice; close it first",
							   disk->name, size_bytes);
}

/* ---- The pause -------------------------------------------------------------------- */

/* What the images have is durable: it does not come after what a new leaf gets. In writeback it is in
 * the same log, before that; what a log layer has is never durable. */
static bool flush(struct disk *disk, GError **error)
{
	return disk->route == &route_writeback || !disk->leaf->image || layer_flush_image(disk->leaf, error);
}

static bool put_barrier(struct disk *disk, GError **error)
{
	if (disk->route == &route_writeback)
		cache_end_epoch(disk->leaf->cached);
	return flush(disk, error);
}

static bool flush_all(const struct disk_change *change, GError **error)
{
	for (unsigned i = 0; i < change->count; i++)
		if (!flush(change->disks[i], error))
			return false;
	return true;
}

static void open_gates(struct disk_change *change, unsigned count)
{
	while (count-- > 0)
		gate_open(&change->disks[count]->gate);
}

static bool close_gates(struct disk_change *change, GError **error)
{
	struct patience patience = {change, loop_now_ns() + GATE_PATIENCE_NS};

	for (unsigned i = 0; i < change->count; i++) {
		struct disk *disk = change->disks[i];

		if (gate_close_while(&disk->gate, is_patient, &patience))
			continue;
		open_gates(change, i);
		return error_set(error, goes_on(change) ? EBUSY : EINTR,
				 "%s: requests that are in work have no answer yet; it runs on as it was, try again",
				 disk->name);
	}
	return true;
}

/* Flushed before, so that there is little left to flush while guests wait. */
bool disk_change_close(struct disk_change *change, GError **error)
{
	bool good = flush_all(change, error) && close_gates(change, error);

	if (!good)
		return false;
	for (unsigned i = 0; i < change->count && good; i++)
		good = put_barrier(change->disks[i], error);
	if (!good)
		open_gates(change, change->count);
	return good;
}

void disk_change_open(struct disk_change *change)
{
	open_gates(change, change->count);
}

/* ---- A new leaf ------------------------------------------------------------------- */

static void give_to(struct layer *layer, struct disk *disk)
{
	if (!layer->pool_cache) {
		layer->disk = disk;
		return;
	}
	LOCK_GUARD(&layer->pool_cache->backlogs.lock);
	layer->disk = disk;
}

/* KEEPER, which nobody knows yet, is made of what DISK was. */
static void take_leaf(struct disk *keeper, struct disk *disk)
{
	struct layer *sealed = disk->leaf;

	layer_unref(keeper->leaf);
	keeper->leaf = layer_ref(sealed);
	keeper->route = disk->route;
	keeper->stack = disk->stack;
	keeper->size_bytes = sealed->image->size_bytes;
	keeper->open = true;
	give_to(sealed, keeper);
}

static void put_on(struct disk *disk, struct layer *leaf, struct stack *stack, GPtrArray *links, uint64_t size_bytes)
{
	struct layer *before = disk->leaf;
	GPtrArray *links_before = disk->links;

	if (strcmp(disk->path, leaf->link->path) != 0) {
		g_assert(!disk->former_path);
		disk->former_path = disk->path;
		disk->path = g_strdup(leaf->link->path);
	}
	if (leaf->pool_cache)
		lock_take(&leaf->pool_cache->backlogs.lock);
	leaf->disk = disk;
	lock_take(&disk->lock);
	disk->leaf = leaf;
	disk->links = links;
	disk->stack = stack;
	disk->size_bytes = size_bytes;
	lock_let_go(&disk->lock);
	if (leaf->pool_cache)
		lock_let_go(&leaf->pool_cache->backlogs.lock);
	layer_unref(before);
	g_ptr_array_unref(links_before);
}

/* As the old one's: what is written may be dirty, or cannot be for now. */
static void attach(struct disk *disk, struct layer *sealed)
{
	struct layer *leaf = disk->leaf;
	struct backlog_status status;

	if (!leaf->pool_cache)
		return;
	disk_go_after_sealed(disk);
	backlog_get_status(sealed, &status);
	if (leaf->share == SHARE_DIRTY)
		backlog_attach(leaf);
	else if (status.state == LAYER_AWAY)
		backlog_attach_away(leaf, status.reason);
}

/* What DISK was, with its leaf where SEALED says. */
static struct disk *new_keeper(const struct disk *disk, struct chain_link *sealed)
{
	GPtrArray *links = chain_links_new();

	g_ptr_array_add(links, chain_link_ref(sealed));
	chain_links_add(links, disk->links, 1);
	return keeper_new(links, disk->mode, disk->pool_cache, disk->leaf->owner);
}

/* Its keeper may be closed at any moment. */
static void keep_open(struct disk_change *change, struct layer *layer)
{
	if (!change->used)
		change->used = g_ptr_array_new_with_free_func((GDestroyNotify)layer_put);
	g_ptr_array_add(change->used, layer_use(layer));
}

void disk_change_leaf(struct disk_change *change, unsigned index, struct layer *leaf, GPtrArray *links,
		      struct chain_link *sealed, struct stack *below)
{
	struct disk *disk = change->disks[index];
	struct disk *keeper = new_keeper(disk, sealed);
	struct layer *before = disk->leaf;

	standing_end(disk);
	seal_layer(before, sealed, below ? NULL : leaf->image->uuid, ((struct chain_link *)links->pdata[0])->real);
	if (below)
		keep_open(change, before);
	else
		below = stack_on(layer_use(before), stack_use(disk->stack));
	take_leaf(keeper, disk);
	put_on(disk, leaf, below, links, leaf->image->size_bytes);
	standing_begin(keeper);
	standing_begin(disk);
	attach(disk, before);
	if (keeper->pool_cache)
		keeper_enter(keeper);
	change->keepers[index] = keeper;
}

void disk_change_log(struct disk_change *change, unsigned index, struct layer *layer, struct stack *stack,
		     uint64_t size_bytes)
{
	struct disk *disk = change->disks[index];

	standing_end(disk);
	give_to(disk->leaf, NULL);
	put_on(disk, layer, stack, g_ptr_array_ref(disk->links), size_bytes);
	standing_begin(disk);
}

/* ---- The end ---------------------------------------------------------------------- */

/* The migrator, which closes it too, has its lock for a moment only. */
static bool close_keeper(struct disk *keeper)
{
	if (!lock_try(&keeper->open_lock))
		return false;
	disk_close_unused(keeper);
	lock_let_go(&keeper->open_lock);
	return !keeper->open;
}

/* In writeback the first batch records it, and none goes before the keeper is closed. */
static void record_claim(struct layer *leaf)
{
	g_autoptr(GError) why = NULL;

	if (leaf->share != SHARE_DIRTY && claim_record(leaf, false, &why) != ANSWER_YES)
		log_warning("%s: its owner record says who had it before: %s", leaf->link->path,
			    why ? why->message : "another has it");
}

void disk_change_end(struct disk_change *change)
{
	for (unsigned i = 0; i < change->count; i++)
		if (change->keepers[i] && close_keeper(change->keepers[i]))
			record_claim(change->disks[i]->leaf);
	let_go(change, change->count);
	let_go_backlogs(change);
	g_clear_pointer(&change->used, g_ptr_array_unref);
	for (unsigned i = 0; i < change->count; i++)
		disk_unref(change->keepers[i]);
	g_clear_pointer(&change->keepers, g_free);
}
