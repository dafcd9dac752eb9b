/* Each invariant of cache/internal.h is broken, one at a time, on a cache that runs,
 * and the check of the tests' build sees which. */
#include "cache/invariants.h"

#include "cache/format/format.h"
#include "cache/log/wake.h"
#include "cache/writeback.h"
#include "cache_rig.h"

#ifdef LEAFDISK_FAULTS

#define BLOCKS 64
#define DIRECTORY "LEAFDISK_TEST_CACHE" /* what a subprocess shares */

/* A cache with a volatile layer, of which BLOCKS are pinned, and a dirty one. */
struct rig {
	struct cache *cache;
	struct cache_layer *pinned, *dirty;
	struct user user;
	char *path;
};

static void rig_init(struct rig *rig)
{
	struct cache_layer_key key = {.identity = {1}, .stamp = 7, .size_bytes = UINT64_C(1) << 40, .name = "dirty"};
	uint64_t generation = 1;
	int result;

	user_init(&rig->user);
	rig->path = new_path();
	unlink(rig->path); /* a subprocess counts from 0 too */
	rig->cache = open_cache(rig->path, SMALL);
	rig->pinned = cache_layer_new_volatile(rig->cache, "pinned");
	rig->dirty = cache_layer_open_dirty(rig->cache, &key, &generation, NULL, &result);
	g_assert_nonnull(rig->dirty);
	g_assert_cmpint(put(&rig->user, rig->pinned, 1, 0, BLOCKS, 1, true), ==, 0);
	g_assert_cmpint(put(&rig->user, rig->dirty, 2, 0, BLOCKS, 1, true), ==, 0);
	g_assert_cmpint(cache_put_zero(rig->dirty, 1000, 10), ==, 0);
}

static void rig_clear(struct rig *rig)
{
	cache_layer_close(rig->dirty, 0);
	cache_layer_close(rig->pinned, 0);
	g_assert_cmpint(cache_close(rig->cache), ==, 0);
	user_clear(&rig->user);
	g_free(rig->path);
}

/* Takes the lock while a record is open: the writer's thread closes it after a while. */
static void lock_with_open_record(struct rig *rig)
{
	for (lock_take(&rig->cache->lock); !rig->cache->log.open; lock_take(&rig->cache->lock)) {
		lock_let_go(&rig->cache->lock);
		g_assert_cmpint(put(&rig->user, rig->pinned, 1, 0, 1, 1, true), ==, 0);
	}
}

static const char *find_locked(struct rig *rig)
{
	return cache_find_breach_locked(rig->cache, 0, rig->cache->ring_segments);
}

/* NUMBER is what does not hold now. */
static void assert_broken_locked(struct rig *rig, const char *number)
{
	const char *breach = find_locked(rig);

	g_assert_nonnull(breach);
	g_assert_cmpint(strncmp(breach, number, strlen(number)), ==, 0);
}

/* Broken by NEW in PLACE, and whole again with what was there. */
#define ASSERT_BREAKS(rig, number, place, new)                                                                         \
	do {                                                                                                           \
		__auto_type was = (place);                                                                             \
                                                                                                                       \
		(place) = (new);                                                                                       \
		assert_broken_locked(rig, number);                                                                     \
		(place) = was;                                                                                         \
		g_assert_cmpstr(find_locked(rig), ==, NULL);                                                           \
	} while (0)

static uint32_t slot_of(struct rig *rig, const struct cache_layer *layer, uint64_t block)
{
	uint32_t slot = index_find(rig->cache->index, layer->id, block);

	g_assert_cmpuint(slot, !=, INDEX_NO_SLOT);
	return slot;
}

static void assert_flag_breaks_locked(struct rig *rig, const char *number, uint32_t slot, unsigned set, unsigned clear)
{
	struct index_entry entry;

	index_get(rig->cache->index, slot, &entry);
	index_set_flags(rig->cache->index, slot, set, clear);
	assert_broken_locked(rig, number);
	index_set_flags(rig->cache->index, slot, entry.flags, ~entry.flags);
	g_assert_cmpstr(find_locked(rig), ==, NULL);
}

/* ---- 1 to 9 -------------------------------------------------------------- */

/* A slot whose data is compared in this call, as cache_check_locked() would in some. */
static void test_data(void)
{
	struct rig rig;
	uint8_t *byte;
	uint32_t slot;

	rig_init(&rig);
	lock_with_open_record(&rig);
	g_assert_cmpstr(find_locked(&rig), ==, NULL);
	slot = slot_of(&rig, rig.pinned, 5);
	byte = slot_data(rig.cache->segments[segment_of(slot)].buffer->data, slot);
	rig.cache->checks = CACHE_SEGMENT_BLOCKS - block_in_segment(slot);
	ASSERT_BREAKS(&rig, "1:", *byte, *byte ^ 1);
	ASSERT_BREAKS(&rig, "1:", rig.cache->log.open->blocks, 1);
	lock_let_go(&rig.cache->lock);
	rig_clear(&rig);
}

static void test_buffers(void)
{
	struct cache_buffer *buffer;
	struct rig rig;

	rig_init(&rig);
	lock_with_open_record(&rig);
	buffer = rig.cache->log.open->buffer;
	ASSERT_BREAKS(&rig, "2:", rig.cache->segments[buffer->segment].buffer, NULL);
	ASSERT_BREAKS(&rig, "2:", buffer->segment, buffer->segment + 1);
	ASSERT_BREAKS(&rig, "2:", buffer->first, CACHE_SEGMENT_BLOCKS);
	ASSERT_BREAKS(&rig, "2:", buffer->references, 1);
	ASSERT_BREAKS(&rig, "2:", rig.cache->log.free_buffer_count, 0);
	lock_let_go(&rig.cache->lock);
	rig_clear(&rig);
}

static void test_sequence(void)
{
	struct rig rig;

	rig_init(&rig);
	lock_with_open_record(&rig);
	ASSERT_BREAKS(&rig, "3:", rig.cache->log.open->sequence, rig.cache->log.open->sequence + 1);
	ASSERT_BREAKS(&rig, "3:", rig.cache->log.next_sequence, rig.cache->log.next_sequence + 1);
	ASSERT_BREAKS(&rig, "3:", rig.cache->log.durable, rig.cache->log.durable - 1);
	ASSERT_BREAKS(&rig, "3:", rig.cache->log.open, &rig.cache->log.records[CACHE_RECORDS - 1]);
	lock_let_go(&rig.cache->lock);
	rig_clear(&rig);
}

static void test_ring(void)
{
	struct cache_segment *free_segment;
	struct rig rig;

	rig_init(&rig);
	g_assert_cmpint(cache_sync(rig.cache), ==, 0);
	lock_take(&rig.cache->lock);
	free_segment = &rig.cache->segments[rig.cache->ring_segments - 1];
	ASSERT_BREAKS(&rig, "4:", rig.cache->reclaim.segment, rig.cache->ring_segments - 1);
	ASSERT_BREAKS(&rig, "4:", rig.cache->ring_segments, rig.cache->segment_count + 1);
	ASSERT_BREAKS(&rig, "4:", rig.cache->super.tail_segment, le64_of(1));
	ASSERT_BREAKS(&rig, "4:", free_segment->sequence, 1);
	ASSERT_BREAKS(&rig, "4:", rig.cache->segments[0].sequence, 0);
	lock_let_go(&rig.cache->lock);
	rig_clear(&rig);
}

static void test_cleared(void)
{
	struct index_entry entry = {.flags = INDEX_PROVEN, .block = 5000};
	struct cache_segment *free_segment;
	uint32_t slot;
	struct rig rig;

	rig_init(&rig);
	lock_with_open_record(&rig);
	free_segment = &rig.cache->segments[rig.cache->ring_segments - 1];
	slot = (uint32_t)((rig.cache->ring_segments - 1) * CACHE_SEGMENT_BLOCKS);
	ASSERT_BREAKS(&rig, "5:", free_segment->readers, 1);
	ASSERT_BREAKS(&rig, "5:", free_segment->buffer, rig.cache->log.open->buffer);
	entry.layer = rig.pinned->id;
	index_insert(rig.cache->index, slot, &entry);
	assert_broken_locked(&rig, "5:");
	index_clear(rig.cache->index, slot);
	g_assert_cmpstr(find_locked(&rig), ==, NULL);
	lock_let_go(&rig.cache->lock);
	rig_clear(&rig);
}

static void test_dirty(void)
{
	uint64_t segment;
	struct rig rig;

	rig_init(&rig);
	lock_take(&rig.cache->lock);
	segment = segment_of(slot_of(&rig, rig.dirty, 3));
	ASSERT_BREAKS(&rig, "6:", rig.cache->segments[segment].dirty, BLOCKS - 1);
	ASSERT_BREAKS(&rig, "6:", rig.cache->segments[rig.cache->ring_segments - 1].dirty, 1);
	lock_let_go(&rig.cache->lock);
	rig_clear(&rig);
}

/* A dirty block that was put before all of its segment, and nobody says that it was moved. */
static void test_order(void)
{
	struct index_entry entry;
	uint32_t slot;
	struct rig rig;

	rig_init(&rig);
	g_assert_cmpint(cache_sync(rig.cache), ==, 0);
	lock_take(&rig.cache->lock);
	slot = slot_of(&rig, rig.dirty, 3);
	index_get(rig.cache->index, slot, &entry);
	ASSERT_BREAKS(&rig, "9:", rig.cache->segments[segment_of(slot)].sequence, entry.order + 1);
	lock_let_go(&rig.cache->lock);
	rig_clear(&rig);
}

static void test_newest(void)
{
	struct index_entry newer, older;
	uint32_t live, before;
	struct rig rig;

	rig_init(&rig);
	g_assert_cmpint(cache_sync(rig.cache), ==, 0);
	before = slot_of(&rig, rig.dirty, 3);
	g_assert_cmpint(put(&rig.user, rig.dirty, 2, 3, 1, 2, true), ==, 0);
	lock_take(&rig.cache->lock);
	live = slot_of(&rig, rig.dirty, 3);
	g_assert_cmpuint(live, >, before);
	assert_flag_breaks_locked(&rig, "7:", live, INDEX_BUSY, 0);
	index_get(rig.cache->index, live, &newer);
	index_get(rig.cache->index, before, &older);
	index_insert(rig.cache->index, before, &older);
	assert_broken_locked(&rig, "7:");
	index_insert(rig.cache->index, live, &newer);
	g_assert_cmpstr(find_locked(&rig), ==, NULL);
	lock_let_go(&rig.cache->lock);
	rig_clear(&rig);
}

static void test_counts(void)
{
	struct rig rig;

	rig_init(&rig);
	lock_take(&rig.cache->lock);
	ASSERT_BREAKS(&rig, "8:", rig.cache->live_blocks, 1);
	ASSERT_BREAKS(&rig, "8:", rig.cache->pinned_blocks, 0);
	ASSERT_BREAKS(&rig, "8:", rig.cache->dirty_blocks, 0);
	ASSERT_BREAKS(&rig, "8:", rig.cache->dirty_slots, 0);
	ASSERT_BREAKS(&rig, "8:", rig.cache->dirty_zeros, 0);
	ASSERT_BREAKS(&rig, "8:", rig.cache->degraded_layers, 1);
	/* The sums are right, and the slots have less. */
	assert_flag_breaks_locked(&rig, "8:", slot_of(&rig, rig.pinned, 9), 0, INDEX_PINNED);
	lock_let_go(&rig.cache->lock);
	rig_clear(&rig);
}

/* ---- Who looks ----------------------------------------------------------- */

static void break_and_wake(void (*wake)(struct cache *cache))
{
	struct rig rig;

	rig_init(&rig);
	lock_take(&rig.cache->lock);
	rig.cache->live_blocks++;
	lock_let_go(&rig.cache->lock);
	wake(rig.cache);
	g_usleep(PATIENCE_S * G_USEC_PER_SEC);
}

static void wake_writer(struct cache *cache)
{
	LOCK_GUARD(&cache->lock);
	wake_writer_locked(cache);
}

static void wake_reclaim(struct cache *cache)
{
	LOCK_GUARD(&cache->lock);
	condition_signal(&cache->reclaim.wanted);
}

static void wake_migration(struct cache *cache)
{
	cache_kick(cache);
	cache_wait_work(cache, UINT64_MAX);
}

static void assert_aborts(void)
{
	g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
	g_test_trap_assert_failed();
	g_test_trap_assert_stderr("*invariant 8: *");
}

static void test_writer_looks(void)
{
	if (g_test_subprocess())
		break_and_wake(wake_writer);
	else
		assert_aborts();
}

static void test_reclaim_looks(void)
{
	if (g_test_subprocess())
		break_and_wake(wake_reclaim);
	else
		assert_aborts();
}

static void test_migration_looks(void)
{
	if (g_test_subprocess())
		break_and_wake(wake_migration);
	else
		assert_aborts();
}

/* What is called _locked without the lock ends the tests' program. */
static void test_lock_is_asserted(void)
{
	struct rig rig;

	if (!g_test_subprocess()) {
		g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
		g_test_trap_assert_failed();
		g_test_trap_assert_stderr("*lock_is_mine*");
		return;
	}
	rig_init(&rig);
	wake_writer_locked(rig.cache);
}

int main(int argc, char **argv)
{
	int result;

	g_test_init(&argc, &argv, NULL);
	if (g_test_subprocess()) {
		directory = g_strdup(g_getenv(DIRECTORY));
	} else {
		make_directory();
		g_setenv(DIRECTORY, directory, TRUE);
	}
	g_test_add_func("/cache-invariants/1-data", test_data);
	g_test_add_func("/cache-invariants/2-buffers", test_buffers);
	g_test_add_func("/cache-invariants/3-sequence", test_sequence);
	g_test_add_func("/cache-invariants/4-ring", test_ring);
	g_test_add_func("/cache-invariants/5-cleared", test_cleared);
	g_test_add_func("/cache-invariants/6-dirty", test_dirty);
	g_test_add_func("/cache-invariants/7-newest", test_newest);
	g_test_add_func("/cache-invariants/9-order", test_order);
	g_test_add_func("/cache-invariants/8-counts", test_counts);
	g_test_add_func("/cache-invariants/writer-looks", test_writer_looks);
	g_test_add_func("/cache-invariants/reclaim-looks", test_reclaim_looks);
	g_test_add_func("/cache-invariants/migration-looks", test_migration_looks);
	g_test_add_func("/cache-invariants/lock-is-asserted", test_lock_is_asserted);
	result = g_test_run();
	remove_directory();
	return result;
}

#else

int main(void)
{
	return 0;
}

#endif
