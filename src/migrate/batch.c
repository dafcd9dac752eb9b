/* One batch of a layer's changes, from the cache to its image.
 *
 * A leaf that has failed is opened anew first. A full store gets smaller batches,
 * down to an epoch, then pieces of that; what is discarded later may be what makes
 * room for it, so an epoch for which there is none is tried again together with all
 * up to such discards. Once there is room the batches grow again.
 *
 * The backlogs' lock is not held while a batch is under way; `busy` is, so nobody
 * else exchanges the leaf or closes the chain. */
#include "batch.h"

#include <errno.h>
#include <limits.h>

#include "migrate/apply.h"
#include "core/counters.h"
#include "core/error.h"
#include "disk/standing.h"
#include "note.h"
#include "owned.h"
#include "state.h"

/* Blocks of a batch while room is short. */
#define SHORT_BATCH 512
/* Blocks of a batch whose discards are to make room. */
#define FULL_BATCH CACHE_BATCH_BLOCKS_MAX
#define LOST_TOLD 16
/* How long the gate of a disk on a sealed layer may take to close. */
#define STANDING_PATIENCE_US (500 * 1000)

/* ---- A leaf that has failed ------------------------------------------------ */

static bool is_usable(const struct image *image)
{
	return !image->failed && image->begun;
}

/* The one that was in its place. The gate is closed, and open_lock is held. */
static struct image *put_image(struct layer *layer, struct image *image)
{
	struct image *before = layer->image;

	layer->image = image;
	return before;
}

/* AGAIN: it is not lent. */
static struct image *exchange_lent(struct layer *layer, struct image *again)
{
	struct backlogs *backlogs = &layer->pool_cache->backlogs;

	LOCK_GUARD(&backlogs->lock);
	return layer->backlog.lent ? put_image(layer, again) : again;
}

/* Those who stand on LAYER read it too. */
static struct image *exchange_sealed(struct layer *layer, struct image *again)
{
	g_autoptr(GPtrArray) disks = g_ptr_array_new_with_free_func((GDestroyNotify)disk_unref);
	struct image *unused;

	if (!standing_close(layer, STANDING_PATIENCE_US, disks))
		return again;
	unused = put_image(layer, again);
	standing_open(layer, disks);
	return unused;
}

static struct image *exchange_leaf(struct layer *layer, struct image *again)
{
	struct disk *disk = layer->disk;
	struct image *unused = again;

	if (!state_try_close(disk))
		return again;
	if (layer->disk == disk)
		unused = put_image(layer, again);
	gate_open(&disk->gate);
	return unused;
}

/* The new one takes the other's place behind the gate. Whoever has open_lock may
 * be waiting for this migration to pause: it is not waited for. */
static int exchange_image(struct layer *layer, struct image *again)
{
	struct image *unused = exchange_lent(layer, again);
	struct disk *disk = layer->disk;

	if (unused == again && lock_try(&disk->open_lock)) {
		if (layer->disk == disk)
			unused = layer->sealed ? exchange_sealed(layer, again) : exchange_leaf(layer, again);
		lock_let_go(&disk->open_lock);
	}
	(void)image_close(unused);
	return unused == again ? -EAGAIN : 0;
}

/* A leaf that failed refuses everything until it is opened anew. Until another
 * is there, ready to be written, it stays in its place. While an outage lasts
 * the new one says nothing of it. -EAGAIN: not now. */
static int reopen_image(struct layer *layer)
{
	g_autoptr(GError) error = NULL;
	struct image *again = chain_link_reopen(layer->link, layer->image, &error);

	if (!again)
		return error_to_errno(error);
	again->quiet = true;
	return exchange_image(layer, again);
}

/* False: it is noted why, or it is not the time. */
static bool make_usable(struct layer *layer)
{
	int result = is_usable(layer->image) ? 0 : reopen_image(layer);

	if (result < 0 && result != -EAGAIN)
		note_errno(layer, result, "cannot be opened again");
	return result == 0;
}

/* ---- Out of the cache ------------------------------------------------------ */

struct taking {
	struct jobs *jobs;
	struct job *job;
	GString *lost; /* blocks */
	unsigned lost_count;
};

static void add_lost(void *opaque, uint64_t block)
{
	struct taking *taking = opaque;

	if (taking->lost_count++ < LOST_TOLD)
		g_string_append_printf(taking->lost, "%s%" G_GUINT64_FORMAT, taking->lost_count > 1 ? ", " : "", block);
}

static bool has_memory(void *opaque, uint64_t data_blocks)
{
	struct taking *taking = opaque;

	return jobs_take_memory(taking->jobs, taking->job, MAX(data_blocks, 1) << BLOCK_SHIFT);
}

static void note_lost(struct layer *layer, const struct taking *taking)
{
	g_autofree char *reason = g_strdup_printf(
		"%s: failed: %u of its blocks that only the cache has are damaged there (4 KiB block%s %s%s); "
		"leafctl cache dump saves the others",
		layer->name, taking->lost_count, taking->lost_count == 1 ? "" : "s", taking->lost->str,
		taking->lost_count > LOST_TOLD ? ", ..." : "");

	note_end(layer, LAYER_FAILED, reason);
}

/* A cache that fails may work again: nothing is lost. */
static void note_unreadable(struct layer *layer, int result)
{
	g_autofree char *reason = g_strdup_printf("%s: the cache cannot be read, which alone has its changes: %s",
						  layer->name, g_strerror(-result));

	note_failure(layer, result, reason);
}

/* NULL: nothing is complete, there is no memory, or it is noted why. */
static struct cache_batch *take_batch(struct jobs *jobs, struct job *job, struct cache_batch_limits *limits)
{
	struct taking taking = {.jobs = jobs, .job = job, .lost = g_string_new(NULL)};
	struct layer *layer = job->layer;
	struct cache_batch *batch = NULL;
	int result;

	limits->has_memory = has_memory;
	result = cache_batch_take(layer->cached, limits, &batch, add_lost, &taking);
	if (taking.lost_count > 0)
		note_lost(layer, &taking);
	else if (result < 0 && result != -EAGAIN)
		note_unreadable(layer, result);
	g_string_free(taking.lost, TRUE);
	return batch;
}

/* ---- On a full store ------------------------------------------------------- */

/* True: BATCH is freed, and the image is sure not to have it: a flush settles what
 * a commit left open. */
static bool make_smaller(struct layer *layer, struct cache_batch *batch)
{
	if (layer->backlog.in_pieces || image_run_blocking(layer->image, &(struct image_op){0}, image_flush) < 0 ||
	    !cache_batch_refuse(batch))
		return false;
	layer->backlog.batch_max = 0;
	return true;
}

static void grow_batches(struct backlog *backlog)
{
	if (backlog->batch_max < UINT_MAX / 4)
		backlog->batch_max = backlog->batch_max * 2 + 64;
	else
		backlog->batch_max = UINT_MAX;
}

/* Who urges a disk changes its count of failures. */
static bool found_no_room(struct layer *layer)
{
	struct backlogs *backlogs = &layer->pool_cache->backlogs;

	LOCK_GUARD(&backlogs->lock);
	return layer->backlog.failures && apply_found_no_room(layer->backlog.error);
}

/* Only who has made the disk busy looks at how large its batches are. */
static void set_limits(struct layer *layer, unsigned offer_blocks, struct cache_batch_limits *limits)
{
	struct cache_dirty dirty;
	struct look look;

	look_refresh(&look, layer->pool_cache);
	limits->data_blocks = (unsigned)MIN(look.tunables.migrate_batch, offer_blocks);
	limits->data_blocks = MIN(limits->data_blocks, CACHE_BATCH_BLOCKS_MAX);
	limits->data_blocks = MIN(limits->data_blocks, layer->backlog.batch_max);
	if (look.cache.short_of_room)
		limits->data_blocks = MIN(limits->data_blocks, SHORT_BATCH);
	limits->extents = image_apply_extents_max(layer->image);
	if (limits->extents == 0)
		limits->extents = UINT_MAX;
	cache_layer_get_dirty(layer->cached, &dirty);
	layer->backlog.in_pieces = found_no_room(layer) && dirty.zeros > 0;
	if (!layer->backlog.in_pieces)
		return;
	limits->data_blocks = MIN(FULL_BATCH, offer_blocks);
	limits->extents = FULL_BATCH;
}

/* ---- To its image ---------------------------------------------------------- */

/* BATCH is freed. True: the image has it, or will get it in smaller ones. */
static bool apply(struct layer *layer, struct cache_batch *batch)
{
	int result = layer->backlog.in_pieces ? -ENOSPC : batch_apply(layer->image, batch);

	if (apply_found_no_room(result)) {
		if (make_smaller(layer, batch))
			return true;
		result = batch_apply_in_pieces(layer->image, batch);
	}
	if (result < 0) {
		cache_batch_free(batch);
		note_errno(layer, result, "cannot be written");
		return false;
	}
	counter_add(migrate_batches, 1);
	counter_add(migrate_blocks, batch->data_blocks);
	cache_batch_done(batch);
	grow_batches(&layer->backlog);
	note_success(layer);
	return true;
}

bool batch_migrate(struct jobs *jobs, struct job *job)
{
	struct cache_batch_limits limits = {.cut = job->cut};
	struct layer *layer = job->layer;
	struct cache_batch *batch;

	if (!make_usable(layer) || !owned_check(layer))
		return false;
	set_limits(layer, (unsigned)(jobs_offer_memory(jobs) >> BLOCK_SHIFT), &limits);
	batch = take_batch(jobs, job, &limits);
	return batch && apply(layer, batch);
}
