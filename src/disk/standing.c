/* Which disks stand on a sealed layer. */
#include "disk/standing.h"

#include "core/thread.h"

static void add_locked(struct layer *layer, struct disk *disk)
{
	lock_assert_mine(&layer->pool_cache->backlogs.lock);
	if (!layer->standing)
		layer->standing = g_ptr_array_new();
	g_ptr_array_add(layer->standing, disk);
}

static void begin(struct layer *layer, struct disk *disk)
{
	struct backlogs *backlogs = &layer->pool_cache->backlogs;

	LOCK_GUARD(&backlogs->lock);
	while (layer->exchanging)
		lock_wait(&backlogs->lock, &backlogs->changed);
	add_locked(layer, disk);
}

void standing_begin(struct disk *disk)
{
	thread_assert_may_wait();
	for (unsigned i = 0; disk->pool_cache && i < stack_depth(disk->stack); i++)
		if (stack_layer(disk->stack, i)->sealed)
			begin(stack_layer(disk->stack, i), disk);
}

void standing_end(struct disk *disk)
{
	for (unsigned i = 0; disk->pool_cache && i < stack_depth(disk->stack); i++) {
		struct layer *layer = stack_layer(disk->stack, i);

		LOCK_GUARD(&layer->pool_cache->backlogs.lock);
		if (layer->sealed && layer->standing)
			(void)g_ptr_array_remove_fast(layer->standing, disk);
	}
}

static void take(struct layer *layer, GPtrArray *disks)
{
	LOCK_GUARD(&layer->pool_cache->backlogs.lock);
	layer->exchanging = true;
	for (guint i = 0; layer->standing && i < layer->standing->len; i++)
		if (disk_ref_if_alive(layer->standing->pdata[i]))
			g_ptr_array_add(disks, layer->standing->pdata[i]);
}

static void let_others(struct layer *layer)
{
	struct backlogs *backlogs = &layer->pool_cache->backlogs;

	LOCK_GUARD(&backlogs->lock);
	layer->exchanging = false;
	condition_broadcast(&backlogs->changed);
}

static void open_gates(GPtrArray *disks, guint count)
{
	while (count-- > 0)
		gate_open(&((struct disk *)disks->pdata[count])->gate);
}

bool standing_close(struct layer *layer, int64_t patience_us, GPtrArray *disks)
{
	take(layer, disks);
	for (guint i = 0; i < disks->len; i++) {
		if (gate_try_close(&((struct disk *)disks->pdata[i])->gate, patience_us))
			continue;
		open_gates(disks, i);
		let_others(layer);
		return false;
	}
	return true;
}

void standing_open(struct layer *layer, GPtrArray *disks)
{
	open_gates(disks, disks->len);
	let_others(layer);
}
