/* Fetches: one list, scanned; it is as long as the queues are deep.
 *
 *   1. Of the fetches under way for a layer no two overlap.
 *   2. Publishing and looking whether it was cancelled are one step under the
 *      lock. A writer cancels first and changes the cache then: so either its
 *      change comes after what was published, or nothing was. */
#include "layer/fetch.h"

#include "core/bytes.h"
#include "core/counters.h"

void fetches_init(struct fetches *fetches)
{
	lock_init(&fetches->lock, LOCK_RANK_FETCHES);
	list_init(&fetches->under_way);
}

void fetches_clear(struct fetches *fetches)
{
	lock_destroy(&fetches->lock);
}

static bool overlaps(const struct fetch *fetch, const struct cache_layer *layer, uint64_t block, uint64_t blocks)
{
	return fetch->layer == layer && fetch->block < block + blocks && block < fetch->block + fetch->blocks;
}

/* Cuts FETCH short of what is under way, or returns who has its first block. */
static struct fetch *find_overlap_locked(struct fetches *fetches, struct fetch *fetch)
{
	lock_assert_mine(&fetches->lock);
	list_foreach(node, &fetches->under_way)
	{
		struct fetch *other = container_of(node, struct fetch, link);

		if (!overlaps(other, fetch->layer, fetch->block, fetch->blocks))
			continue;
		if (other->block <= fetch->block)
			return other;
		fetch->blocks = other->block - fetch->block;
	}
	return NULL;
}

bool fetch_begin(struct fetches *fetches, struct fetch *fetch)
{
	struct fetch *other;

	list_init(&fetch->waiting);
	fetch->cancelled = false;
	lock_take(&fetches->lock);
	other = find_overlap_locked(fetches, fetch);
	list_append(other ? &other->waiting : &fetches->under_way, &fetch->link);
	lock_let_go(&fetches->lock);
	if (other)
		counter_add(cache_fetches_shared, 1);
	return !other;
}

static void wake(struct fetch *waiter)
{
	list_remove(&waiter->link);
	loop_post(waiter->loop, &waiter->ended);
}

void fetch_shorten(struct fetches *fetches, struct fetch *fetch, uint64_t blocks)
{
	struct list *node, *next;

	LOCK_GUARD(&fetches->lock);
	fetch->blocks = blocks;
	for (node = fetch->waiting.next; node != &fetch->waiting; node = next) {
		struct fetch *waiter = container_of(node, struct fetch, link);

		next = node->next;
		if (waiter->block >= fetch->block + blocks)
			wake(waiter);
	}
}

/* What finds no room in the cache at the moment is not worth waiting for. */
static void publish(const struct fetch *fetch, const uint8_t *data)
{
	uint64_t done = 0;
	int64_t n = 1;

	while (done < fetch->blocks && n > 0) {
		n = cache_put(fetch->layer, fetch->block + done, fetch->blocks - done, data + (done << BLOCK_SHIFT),
			      false);
		if (n > 0)
			done += (uint64_t)n;
	}
	counter_add(cache_fetched_blocks, fetch->blocks);
}

void fetch_end(struct fetches *fetches, struct fetch *fetch, const uint8_t *data)
{
	struct list *node;

	LOCK_GUARD(&fetches->lock);
	if (data && !fetch->cancelled)
		publish(fetch, data);
	list_remove(&fetch->link);
	while ((node = list_first(&fetch->waiting)))
		wake(container_of(node, struct fetch, link));
}

void fetch_cancel(struct fetches *fetches, const struct cache_layer *layer, uint64_t block, uint64_t blocks)
{
	LOCK_GUARD(&fetches->lock);
	list_foreach(node, &fetches->under_way)
	{
		struct fetch *fetch = container_of(node, struct fetch, link);

		if (overlaps(fetch, layer, block, blocks))
			fetch->cancelled = true;
	}
}
