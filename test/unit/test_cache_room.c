/* A log whose oldest segments are full of what one image does not take: they move, at the
 * cost of a little more of the log than they free, and neither the batches of another disk nor
 * its puts use up what is needed for that. */
#include <unistd.h>

#include "cache_disk.h"

#define SEGMENT_BYTES (1u << 20)
/* Single blocks: so many of them, with their records, fill a segment. */
#define DENSE_BLOCKS 254

struct room {
	struct cache *cache;
	struct cache_layer *stuck, *other;
	uint64_t stuck_blocks, other_blocks;
	uint8_t *data;
};

static void room_init(struct room *room, const char *path, unsigned segments)
{
	*room = (struct room){.cache = open_cache(path, (uint64_t)(segments + 1) * SEGMENT_BYTES)};
	room->stuck = open_dirty(room->cache, 1, 0, 1);
	room->other = open_dirty(room->cache, 2, 0, 1);
	room->data = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
	fill(room->data, 1, 1, 1);
}

static void room_clear(struct room *room)
{
	cache_layer_close(room->stuck, 0);
	cache_layer_close(room->other, 0);
	g_assert_cmpint(cache_close(room->cache), ==, 0);
	free(room->data);
}

/* No two follow each other. */
static bool try_put(struct room *room, struct cache_layer *layer, uint64_t *count)
{
	if (cache_put(layer, 2 * *count, 1, room->data, true) != 1)
		return false;
	++*count;
	return true;
}

static unsigned write_back(struct cache_layer *layer, unsigned blocks)
{
	struct cache_batch_limits limits = {.data_blocks = blocks, .extents = 4096, .cut = true};
	struct cache_batch *batch;
	unsigned count = 0;

	for (;;) {
		g_assert_cmpint(cache_batch_take(layer, &limits, &batch, NULL, NULL), ==, 0);
		if (!batch)
			return count;
		cache_batch_done(batch);
		count++;
	}
}

/* With patience for the disk below, and none for what does not come by itself. */
static void put_of_stuck(struct room *room, unsigned segments)
{
	uint64_t end = room->stuck_blocks + (uint64_t)segments * DENSE_BLOCKS;

	while (room->stuck_blocks < end)
		if (!try_put(room, room->stuck, &room->stuck_blocks))
			g_usleep(1000);
	cache_end_epoch(room->stuck);
	g_assert_cmpint(cache_sync(room->cache), ==, 0);
}

/* Until there is no room, in small epochs, none of which is written back. */
static void fill_with_other(struct room *room)
{
	unsigned refused = 0;

	while (refused < 200) {
		refused = try_put(room, room->other, &room->other_blocks) ? 0 : refused + 1;
		if (refused > 0)
			g_usleep(1000);
		else if (room->other_blocks % 64 == 0)
			cache_end_epoch(room->other);
	}
}

/* Written and written back, over and over. */
static void go_round(struct room *room, unsigned segments)
{
	uint64_t end = room->other_blocks + (uint64_t)segments * DENSE_BLOCKS;
	gint64 until = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;
	struct cache_status status;

	while (room->other_blocks < end) {
		if (try_put(room, room->other, &room->other_blocks)) {
			until = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;
			continue;
		}
		write_back(room->other, 4096);
		cache_get_status(room->cache, &status);
		if (g_get_monotonic_time() > until)
			g_error("there is no room, and none comes: free %" PRIu64 ", tail %" PRIu64 ", head %" PRIu64,
				status.free_segments, status.tail_segment, status.head_segment);
		g_usleep(1000);
	}
}

/* SEGMENTS, of which so many are DENSE with what is stuck. */
static void run(unsigned segments, unsigned dense, unsigned batch_blocks)
{
	g_autofree char *path = new_path();
	struct room room;

	room_init(&room, path, segments);
	put_of_stuck(&room, dense);
	go_round(&room, segments / 6);
	write_back(room.other, 4096);
	fill_with_other(&room);
	g_test_message("%u batches", write_back(room.other, batch_blocks));
	cache_layer_set_stuck(room.stuck, true);
	go_round(&room, segments);
	cache_layer_set_stuck(room.stuck, false);
	g_assert_cmpuint(write_back(room.stuck, 4096), >, 0);
	write_back(room.other, 4096);
	go_round(&room, 8);
	room_clear(&room);
}

static void test_batches_of_another(void)
{
	run(256, 20, 64);
}

static void test_many_dense_segments(void)
{
	unsigned segments = getenv("LEAFDISK_TORTURE") ? 1200 : 200;

	run(segments, segments / 10 * 7, 4096);
}

#define PIECE_BLOCKS 16

/* LAYERS have all that they may, in large pieces; then their images take nothing. */
static void fill_and_stick(struct cache_layer **layers, unsigned count)
{
	uint8_t *data = aligned_alloc(BLOCK_SIZE, PIECE_BLOCKS * BLOCK_SIZE);
	unsigned refused = 0;

	memset(data, 1, PIECE_BLOCKS * BLOCK_SIZE);
	for (uint64_t block = 0; refused < 100 * count; block += PIECE_BLOCKS)
		for (unsigned i = 0; i < count; i++) {
			bool taken = cache_put(layers[i], block, PIECE_BLOCKS, data, true) > 0;

			refused = taken ? 0 : refused + 1;
			if (!taken)
				g_usleep(1000);
		}
	for (unsigned i = 0; i < count; i++)
		cache_layer_set_stuck(layers[i], true);
	free(data);
}

/* As many as have all that may be dirty, and then, one after the other, LATER that come when all of
 * these are stuck and have some of what is kept back. Another is written as ever. */
static void run_stuck(unsigned later)
{
	g_autofree char *path = new_path();
	g_autofree struct cache_layer **layers = g_new0(struct cache_layer *, 8 + later);
	struct room room;

	room_init(&room, path, 256);
	for (unsigned i = 0; i < 8 + later; i++)
		layers[i] = open_dirty(room.cache, 10 + i, 0, 1);
	fill_and_stick(layers, 8);
	for (unsigned i = 0; i < later; i++)
		fill_and_stick(&layers[8 + i], 1);
	go_round(&room, 256);
	for (unsigned i = 0; i < 8 + later; i++)
		cache_layer_close(layers[i], 0);
	room_clear(&room);
}

static void test_all_but_one_are_stuck(void)
{
	run_stuck(0);
}

static void test_what_is_kept_back_is_stuck(void)
{
	run_stuck(12);
}

int main(int argc, char **argv)
{
	int result;

	g_test_init(&argc, &argv, NULL);
	alarm(DEADLINE_S);
	make_directory();
	g_test_add_func("/cache-room/batches", test_batches_of_another);
	g_test_add_func("/cache-room/dense", test_many_dense_segments);
	g_test_add_func("/cache-room/all-but-one", test_all_but_one_are_stuck);
	g_test_add_func("/cache-room/kept-back", test_what_is_kept_back_is_stuck);
	result = g_test_run();
	remove_directory();
	return result;
}
