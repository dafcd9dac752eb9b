/* Each invariant of image/leaf/leaf.h that memory shows is broken, one at a time, on an
 * image that is in use, and the check of the tests' build sees which. */
#include "image/leaf/invariants.h"

#include "leaf_fixture.h"

#ifdef LEAFDISK_FAULTS

#define PER_CHUNK (CHUNK / BLOCK_SIZE)
#define SIZE (UINT64_C(16) * CHUNK)

/* Chunks 0 and 1 are there and flushed, 1 is written again; 2 is gone; 8 to 15 are zero. */
static struct image *new_image(char **path)
{
	uint8_t *data = new_buffer(CHUNK);
	struct image *image;

	*path = new_leaf(SIZE);
	image = open_leaf(*path, IMAGE_WRITABLE);
	memset(data, 7, CHUNK);
	for (uint64_t chunk = 0; chunk < 3; chunk++)
		g_assert_cmpint(transfer(image, true, chunk * PER_CHUNK, PER_CHUNK, data), ==, 0);
	g_assert_cmpint(run_op(image, image_zero, 8 * PER_CHUNK, 8 * PER_CHUNK), ==, 0);
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
	g_assert_cmpint(run_op(image, image_zero, 2 * PER_CHUNK, PER_CHUNK), ==, 0);
	g_assert_cmpint(transfer(image, true, 4 * PER_CHUNK, 1, data), ==, 0);
	free(data);
	return image;
}

static void assert_broken_locked(struct leaf *leaf, const char *number)
{
	const char *breach = leaf_find_breach_locked(leaf);

	g_assert_nonnull(breach);
	g_assert_cmpint(breach[0], ==, number[0]);
}

/* Broken by NEW in PLACE, and whole again with what was there. */
#define ASSERT_BREAKS(leaf, number, place, new)                                                                        \
	do {                                                                                                           \
		__auto_type was = (place);                                                                             \
                                                                                                                       \
		(place) = (new);                                                                                       \
		assert_broken_locked(leaf, number);                                                                    \
		(place) = was;                                                                                         \
		g_assert_cmpstr(leaf_find_breach_locked(leaf), ==, NULL);                                              \
	} while (0)

static void break_chunks_locked(struct leaf *leaf)
{
	struct chunk *chunk = leaf_chunk_find(leaf, 0);
	struct chunk *other = leaf_chunk_find(leaf, 1);
	uint64_t last = 15;

	ASSERT_BREAKS(leaf, "1", chunk->slot, other->slot);
	ASSERT_BREAKS(leaf, "1", chunk->dead, true);
	ASSERT_BREAKS(leaf, "1", leaf_slot(leaf, chunk->slot)->chunk, other);
	ASSERT_BREAKS(leaf, "1", leaf_slot(leaf, chunk->slot)->chunk, NULL);
	g_hash_table_steal(leaf->chunks, &chunk->index);
	assert_broken_locked(leaf, "1");
	g_hash_table_insert(leaf->chunks, &chunk->index, chunk);
	g_tree_steal(leaf->ordered, &chunk->index);
	assert_broken_locked(leaf, "1");
	g_tree_insert(leaf->ordered, &chunk->index, chunk);
	g_assert_cmpstr(leaf_find_breach_locked(leaf), ==, NULL);
	g_assert_true(intervals_contains(leaf->zero, last, 1, NULL));
	intervals_add(leaf->zero, 0, 1);
	assert_broken_locked(leaf, "2");
	intervals_remove(leaf->zero, 0, 1);
	g_assert_cmpstr(leaf_find_breach_locked(leaf), ==, NULL);
}

static void break_slots_locked(struct leaf *leaf)
{
	struct slot *owned = leaf_slot(leaf, leaf_chunk_find(leaf, 0)->slot);
	uint64_t number = leaf_chunk_find(leaf, 0)->slot;
	struct slot *freed;

	g_assert_cmpuint(leaf->freed->len, >, 0);
	freed = leaf_slot(leaf, g_array_index(leaf->freed, uint64_t, 0));
	ASSERT_BREAKS(leaf, "3", owned->state, SLOT_FREE);
	ASSERT_BREAKS(leaf, "3", freed->state, SLOT_TAKEN);
	ASSERT_BREAKS(leaf, "3", freed->state, SLOT_FREEING);
	ASSERT_BREAKS(leaf, "3", freed->state, SLOT_BUSY);
	g_array_append_val(leaf->free, number);
	assert_broken_locked(leaf, "3");
	g_array_set_size(leaf->free, leaf->free->len - 1);
	number = g_array_index(leaf->freed, uint64_t, 0);
	g_array_append_val(leaf->freed, number);
	assert_broken_locked(leaf, "3");
	g_array_set_size(leaf->freed, leaf->freed->len - 1);
	freed->pins++; /* what is freed may be in use still, what is free may not */
	g_assert_cmpstr(leaf_find_breach_locked(leaf), ==, NULL);
	freed->pins--;
}

static void break_dirty_locked(struct leaf *leaf)
{
	struct chunk *dirty = leaf_chunk_find(leaf, 4);

	g_assert_true(dirty->dirty);
	ASSERT_BREAKS(leaf, "4", dirty->dirty, false);
	ASSERT_BREAKS(leaf, "4", dirty->dirty_position, dirty->dirty_position + 1);
	ASSERT_BREAKS(leaf, "4", leaf->page_dirty->data[leaf_page_of(leaf, dirty->slot)], 0);
}

static void test_breaches_are_seen(void)
{
	g_autofree char *path = NULL;
	struct image *image = new_image(&path);
	struct leaf *leaf = leaf_of(image);

	lock_take(&leaf->lock);
	g_assert_cmpstr(leaf_find_breach_locked(leaf), ==, NULL);
	break_chunks_locked(leaf);
	break_slots_locked(leaf);
	break_dirty_locked(leaf);
	lock_let_go(&leaf->lock);
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(path);
}

/* Where a commit ends. */
static void test_a_breach_ends_it(void)
{
	if (g_test_subprocess()) {
		g_autofree char *path = NULL;
		struct image *image = new_image(&path);

		leaf_chunk_find(leaf_of(image), 0)->dead = true;
		(void)run_op(image, image_flush, 0, 0);
		return;
	}
	g_test_trap_subprocess(NULL, 0, 0);
	g_test_trap_assert_failed();
	g_test_trap_assert_stderr("*invariant 1*");
}

int main(int argc, char **argv)
{
	int status;

	g_test_init(&argc, &argv, NULL);
	directory = make_directory();
	g_test_add_func("/leaf-invariants/breaches", test_breaches_are_seen);
	g_test_add_func("/leaf-invariants/a-breach-ends-it", test_a_breach_ends_it);
	status = g_test_run();
	remove_directory();
	return status;
}

#else

int main(void)
{
	return 0;
}

#endif
