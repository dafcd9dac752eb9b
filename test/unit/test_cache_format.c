/* The cache's blocks: what is built is valid, and every change is found. */
#include <glib.h>
#include <string.h>
#include <xxhash.h>

#include "cache/format/format.h"
#include "cache/format/format_super.h"

#define SLOT 300

static const uint8_t uuid[16] = "the cache's uuid", pool[16] = "the pool's ident";

static const struct cache_record_place place = {
	.position = CACHE_SEGMENTS_OFFSET + SLOT * BLOCK_SIZE,
	.cache_id = 0x1122334455667788,
	.generation = 7,
	.sequence = 99,
	.previous = 0xfeedfacecafebeef,
};

static bool super_is_valid(const struct cache_super_ondisk *super, unsigned copy)
{
	g_autofree char *why = NULL;
	bool valid = cache_super_validate(super, copy, &why);

	g_assert_true(valid == !why);
	return valid;
}

static void make_super(struct cache_super_ondisk *super)
{
	cache_super_init(super, uuid, pool, "/the/pool", CACHE_SEGMENTS_MIN);
	super->sequence = le64_of(5);
	cache_super_seal(super, 1);
}

static void test_super(void)
{
	struct cache_super_ondisk super;

	make_super(&super);
	g_assert_true(super_is_valid(&super, 1));
	g_assert_false(super_is_valid(&super, 0));
	for (unsigned bit = 0; bit < sizeof(super) * 8; bit++) {
		uint8_t *byte = (uint8_t *)&super + bit / 8;

		*byte ^= (uint8_t)(1u << bit % 8);
		g_assert_false(super_is_valid(&super, 1));
		*byte ^= (uint8_t)(1u << bit % 8);
	}
	g_assert_true(super_is_valid(&super, 1));
}

/* Fields that are wrong under a right checksum. */
static void test_super_fields(void)
{
	struct cache_super_ondisk super;

#define REFUSED(field, value)                                                                                          \
	do {                                                                                                           \
		make_super(&super);                                                                                    \
		super.field = (value);                                                                                 \
		super.checksum = le64_of(0);                                                                           \
		cache_super_seal(&super, 1);                                                                           \
		g_assert_false(super_is_valid(&super, 1));                                                             \
	} while (0)
	REFUSED(sequence, le64_of(6));
	REFUSED(features_incompatible, le64_of(1));
	REFUSED(features_read_only, le64_of(1));
	REFUSED(segments, le64_of(UINT64_MAX));
	REFUSED(ring_segments, le64_of(CACHE_SEGMENTS_MIN - 1));
	REFUSED(ring_segments, le64_of(CACHE_SEGMENTS_MIN + 1));
	REFUSED(tail_segment, le64_of(CACHE_SEGMENTS_MIN));
	REFUSED(tail_sequence, le64_of(0));
	REFUSED(tail_sequence, le64_of(2));
	REFUSED(pool_path_bytes, le32_of(8));
	REFUSED(pool_path_bytes, le32_of(UINT32_MAX));
#undef REFUSED
	make_super(&super);
	super.features_compatible = le64_of(UINT64_MAX);
	cache_super_seal(&super, 1);
	g_assert_true(super_is_valid(&super, 1));
}

static void add_layer(struct cache_record_ondisk *record, const char *name)
{
	struct cache_layer_ondisk layer = {.stamp = le64_of(3), .name_bytes = le32_of((uint32_t)strlen(name))};
	size_t bytes = sizeof(layer) + round_up(strlen(name), sizeof(le64));
	le64 *words = cache_record_add(record, 1, CACHE_ENTRY_LAYER, 0, (unsigned)(bytes / sizeof(le64)));

	memset(words, 0, bytes);
	memcpy(words, &layer, sizeof(layer));
	memcpy((char *)words + sizeof(layer), name, strlen(name));
}

/* One entry of each kind; blocks 10 to 14 clean, 20 and 21 dirty. */
static void make_record(struct cache_record_ondisk *record)
{
	cache_record_begin(record);
	add_layer(record, "a name");
	for (uint64_t block = 10; block < 15; block++)
		*cache_record_add_block(record, 1, CACHE_ENTRY_CLEAN, block) = le64_of(block * 3);
	for (uint64_t block = 20; block < 22; block++)
		*cache_record_add_block(record, 1, CACHE_ENTRY_DIRTY, block) = le64_of(block * 3);
	*cache_record_add(record, 2, CACHE_ENTRY_ZERO, 5, 1) = le64_of(1000);
	*cache_record_add(record, 3, CACHE_ENTRY_FORGET, CACHE_BLOCK_END - 1, 1) = le64_of(1);
	cache_record_add(record, CACHE_LAYER_MAX, CACHE_ENTRY_DROP, 0, 0);
	cache_record_seal(record, &place, 98);
}

static void test_record(void)
{
	static const struct {
		enum cache_entry_kind kind;
		uint32_t layer;
		uint64_t block, blocks;
		unsigned first_data;
	} expected[] = {
		{CACHE_ENTRY_LAYER, 1, 0, 0, 0},
		{CACHE_ENTRY_CLEAN, 1, 10, 5, 0},
		{CACHE_ENTRY_DIRTY, 1, 20, 2, 5},
		{CACHE_ENTRY_ZERO, 2, 5, 1000, 0},
		{CACHE_ENTRY_FORGET, 3, CACHE_BLOCK_END - 1, 1, 0},
		{CACHE_ENTRY_DROP, CACHE_LAYER_MAX, 0, 0, 0},
	};
	struct cache_record_ondisk record;
	struct cache_cursor cursor = {0};
	struct cache_entry entry;

	make_record(&record);
	g_assert_true(cache_record_validate(&record, &place));
	g_assert_cmpuint(le32_get(record.blocks), ==, 7);
	for (unsigned i = 0; i < G_N_ELEMENTS(expected); i++) {
		g_assert_true(cache_record_next(&record, &cursor, &entry));
		g_assert_cmpuint(entry.kind, ==, expected[i].kind);
		g_assert_cmpuint(entry.layer, ==, expected[i].layer);
		g_assert_cmpuint(entry.block, ==, expected[i].block);
		g_assert_cmpuint(entry.blocks, ==, expected[i].blocks);
		g_assert_cmpuint(entry.first_data, ==, expected[i].first_data);
	}
	g_assert_false(cache_record_next(&record, &cursor, &entry));
}

static void test_record_bits(void)
{
	struct cache_record_ondisk record;

	make_record(&record);
	for (unsigned bit = 0; bit < sizeof(record) * 8; bit++) {
		uint8_t *byte = (uint8_t *)&record + bit / 8;

		*byte ^= (uint8_t)(1u << bit % 8);
		g_assert_false(cache_record_validate(&record, &place));
		*byte ^= (uint8_t)(1u << bit % 8);
	}
	g_assert_true(cache_record_validate(&record, &place));
}

static void test_record_place(void)
{
	struct cache_record_ondisk record;
	struct cache_record_place other;

	make_record(&record);
#define REFUSED(field, value)                                                                                          \
	do {                                                                                                           \
		other = place;                                                                                         \
		other.field = (value);                                                                                 \
		g_assert_false(cache_record_validate(&record, &other));                                                \
	} while (0)
	REFUSED(position, place.position + BLOCK_SIZE);
	REFUSED(cache_id, 1);
	REFUSED(generation, 8);
	REFUSED(sequence, 98);
	REFUSED(sequence, 100);
	REFUSED(previous, 0);
#undef REFUSED
	other = place;
	other.generation = 1;
	g_assert_true(cache_record_validate(&record, &other));
	cache_record_seal(&record, &place, 99);
	g_assert_false(cache_record_validate(&record, &place));
}

/* A record of one entry, valid or not. */
static bool entry_is_valid(uint32_t layer, unsigned kind, uint64_t block, unsigned words, uint64_t value)
{
	struct cache_record_ondisk record;
	le64 *added;

	cache_record_begin(&record);
	added = cache_record_add(&record, layer, kind, block, words);
	for (unsigned i = 0; i < words; i++)
		added[i] = le64_of(value);
	cache_record_seal(&record, &place, 0);
	return cache_record_validate(&record, &place);
}

static void test_entries(void)
{
	g_assert_true(entry_is_valid(1, CACHE_ENTRY_CLEAN, 0, 211, 0));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_CLEAN, 0, 212, 0)); /* across the segment's end */
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_CLEAN, 0, 0, 0));
	g_assert_false(entry_is_valid(0, CACHE_ENTRY_CLEAN, 0, 1, 0));
	g_assert_false(entry_is_valid(CACHE_LAYER_MAX + 1, CACHE_ENTRY_CLEAN, 0, 1, 0));
	g_assert_true(entry_is_valid(1, CACHE_ENTRY_DIRTY, CACHE_BLOCK_END - 2, 2, 0));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_DIRTY, CACHE_BLOCK_END - 1, 2, 0));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_DIRTY, UINT64_MAX, 2, 0));
	g_assert_true(entry_is_valid(1, CACHE_ENTRY_ZERO, 0, 1, CACHE_BLOCK_END));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_ZERO, 0, 1, CACHE_BLOCK_END + 1));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_ZERO, 0, 1, 0));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_ZERO, 0, 2, 1));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_FORGET, 1, 1, UINT64_MAX));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_LAYER, 0, 9, 0));
	g_assert_true(entry_is_valid(1, CACHE_ENTRY_LAYER, 0, 10, 0));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_LAYER, 1, 10, 0));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_LAYER, 0, 11, 0));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_LAYER, 0, 10, UINT64_MAX));
	g_assert_true(entry_is_valid(1, CACHE_ENTRY_DROP, 0, 0, 0));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_DROP, 1, 0, 0));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_DROP, 0, 1, 0));
	g_assert_false(entry_is_valid(1, 0, 0, 0, 0));
	g_assert_true(entry_is_valid(1, CACHE_ENTRY_BARRIER, 0, 0, 0));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_BARRIER, 1, 0, 0));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_BARRIER, 0, 1, 0));
	for (unsigned kind = CACHE_ENTRY_MIGRATE; kind <= CACHE_ENTRY_MIGRATED; kind++) {
		g_assert_true(entry_is_valid(1, kind, 1, 0, 0));
		g_assert_false(entry_is_valid(1, kind, 0, 0, 0));
		g_assert_false(entry_is_valid(1, kind, CACHE_ORDER_END, 0, 0));
		g_assert_false(entry_is_valid(1, kind, 0, 2, 100));
	}
	g_assert_true(entry_is_valid(1, CACHE_ENTRY_LAST, 0, 0, 0));
	g_assert_true(entry_is_valid(1, CACHE_ENTRY_LAST, 98, 0, 0));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_LAST, 98, 1, 0));
	g_assert_true(entry_is_valid(1, CACHE_ENTRY_MOVED, 5, 2, 98));
	g_assert_true(entry_is_valid(1, CACHE_ENTRY_MOVED, 5, 2, 98 | CACHE_ORDER_SUPERSEDED));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_MOVED, 5, 1, 98));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_MOVED, 5, 0, 0));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_MOVED, 5, 2, 0));
	g_assert_true(entry_is_valid(1, CACHE_ENTRY_MOVED_ZERO, 5, 2, 98));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_MOVED_ZERO, 5, 1, 98));
	g_assert_false(entry_is_valid(1, CACHE_ENTRY_MOVED_ZERO, 5, 2, CACHE_ORDER_END));
	g_assert_false(entry_is_valid(1, 13, 0, 0, 0));
}

/* The same, in a record of version 1. */
static bool entry_1_is_valid(unsigned kind, uint64_t block, unsigned words, uint64_t value)
{
	struct cache_record_ondisk record;
	le64 *added;

	cache_record_begin(&record);
	added = cache_record_add(&record, 1, kind, block, words);
	for (unsigned i = 0; i < words; i++)
		added[i] = le64_of(value);
	cache_record_seal(&record, &place, 0);
	record.magic = le32_of(CACHE_RECORD_MAGIC_1);
	record.checksum = le64_of(0);
	record.checksum = le64_of(XXH64(&record, sizeof(record), 0));
	return cache_record_validate(&record, &place);
}

static void test_version_1(void)
{
	g_assert_true(entry_1_is_valid(CACHE_ENTRY_DIRTY, 7, 2, 1));
	g_assert_true(entry_1_is_valid(CACHE_ENTRY_LAYER, 0, 6, 0));
	g_assert_false(entry_1_is_valid(CACHE_ENTRY_LAYER, 0, 10, 0));
	for (unsigned kind = CACHE_ENTRY_MIGRATE; kind <= CACHE_ENTRY_MIGRATED; kind++) {
		g_assert_true(entry_1_is_valid(kind, 0, 2, 100));
		g_assert_false(entry_1_is_valid(kind, 1, 2, 1));
		g_assert_false(entry_1_is_valid(kind, 0, 1, 1));
		g_assert_false(entry_1_is_valid(kind, 0, 2, 200)); /* no slot has so many behind it */
		g_assert_false(entry_1_is_valid(kind, 1, 0, 0));
	}
	g_assert_false(entry_1_is_valid(CACHE_ENTRY_LAST, 1, 0, 0));
	g_assert_false(entry_1_is_valid(CACHE_ENTRY_MOVED, 5, 2, 98));
	g_assert_false(entry_1_is_valid(CACHE_ENTRY_MOVED_ZERO, 5, 2, 98));
}

/* Blocks that move go on in one entry as long as their order is one. */
static void test_moved(void)
{
	static const struct {
		uint64_t block, blocks, order;
		bool superseded;
	} expected[] = {{5, 2, 40, false}, {7, 1, 41, false}, {8, 1, 41, true}};
	struct cache_record_ondisk record;
	struct cache_cursor cursor = {0};
	struct cache_entry entry;
	unsigned blocks;

	cache_record_begin(&record);
	*cache_record_add_moved(&record, 1, 5, 40) = le64_of(50);
	*cache_record_add_moved(&record, 1, 6, 40) = le64_of(60);
	*cache_record_add_moved(&record, 1, 7, 41) = le64_of(70);
	*cache_record_add_moved(&record, 1, 8, 41 | CACHE_ORDER_SUPERSEDED) = le64_of(80);
	g_assert_cmpuint(le64_get(*cache_record_words(&record, 1, &blocks)), ==, 60);
	g_assert_cmpuint(blocks, ==, 1);
	cache_record_seal(&record, &place, 0);
	g_assert_true(cache_record_validate(&record, &place));
	g_assert_cmpuint(le32_get(record.blocks), ==, 4);
	for (unsigned i = 0, data = 0; i < G_N_ELEMENTS(expected); i++) {
		g_assert_true(cache_record_next(&record, &cursor, &entry));
		g_assert_cmpuint(entry.kind, ==, CACHE_ENTRY_MOVED);
		g_assert_cmpuint(entry.block, ==, expected[i].block);
		g_assert_cmpuint(entry.blocks, ==, expected[i].blocks);
		g_assert_cmpuint(entry.order, ==, expected[i].order);
		g_assert_true(entry.superseded == expected[i].superseded);
		g_assert_cmpuint(entry.first_data, ==, data);
		g_assert_cmpuint(le64_get(entry.checksums[0]), ==, entry.block * 10);
		data += (unsigned)entry.blocks;
	}
	g_assert_false(cache_record_next(&record, &cursor, &entry));
}

/* The lengths themselves are wrong: only the entries without data may be cut off. */
static void test_lengths(void)
{
	struct cache_record_ondisk record;
	uint32_t full;

	make_record(&record);
	full = le32_get(record.entries_bytes);
	for (uint32_t bytes = 0; bytes < 3 * CACHE_RECORD_BODY_BYTES; bytes++) {
		bool whole = bytes == full || bytes == full - 16 || bytes == full - 40 || bytes == full - 64;

		record.entries_bytes = le32_of(bytes);
		cache_record_seal(&record, &place, 0);
		g_assert_true(cache_record_validate(&record, &place) == whole);
	}
	make_record(&record);
	record.blocks = le32_of(6);
	cache_record_seal(&record, &place, 0);
	g_assert_false(cache_record_validate(&record, &place));
}

static void test_room(void)
{
	struct cache_record_ondisk record;
	unsigned blocks = 0;

	cache_record_begin(&record);
	g_assert_cmpint(cache_record_room(&record), ==, 500);
	while (cache_record_add_block(&record, 1, CACHE_ENTRY_CLEAN, blocks * 2))
		blocks++;
	g_assert_cmpuint(blocks, ==, 167);
	g_assert_cmpint(cache_record_room(&record), ==, -1);
	g_assert_null(cache_record_add(&record, 1, CACHE_ENTRY_DROP, 0, 0));
	g_assert_nonnull(cache_record_add_block(&record, 1, CACHE_ENTRY_CLEAN, blocks * 2 - 1));
	g_assert_null(cache_record_add_block(&record, 1, CACHE_ENTRY_CLEAN, blocks * 2));
	cache_record_begin(&record);
	for (blocks = 0; cache_record_add_block(&record, 1, CACHE_ENTRY_CLEAN, blocks); blocks++)
		;
	g_assert_cmpuint(blocks, ==, 500);
}

static void test_data(void)
{
	struct cache_record_ondisk record;
	uint8_t data[2][4096];

	memset(data[0], 1, sizeof(data[0]));
	memset(data[1], 2, sizeof(data[1]));
	cache_record_begin(&record);
	*cache_record_add(&record, 4, CACHE_ENTRY_FORGET, 0, 1) = le64_of(9);
	*cache_record_add_block(&record, 1, CACHE_ENTRY_CLEAN, 10) = le64_of(cache_data_checksum(data[0]));
	*cache_record_add_block(&record, 2, CACHE_ENTRY_DIRTY, 11) = le64_of(cache_data_checksum(data[1]));
	for (unsigned index = 0; index < 2; index++)
		for (unsigned which = 0; which < 2; which++)
			g_assert_true(cache_record_check_data(&record, index, data[which]) == (index == which));
	g_assert_false(cache_record_check_data(&record, 2, data[0]));
}

static void test_places(void)
{
	const uint64_t ring = 7, segment = CACHE_SEGMENT_BLOCKS;

	g_assert_cmpuint(cache_next_record_slot(0, 0, ring), ==, 1);
	g_assert_cmpuint(cache_next_record_slot(0, 253, ring), ==, 254);
	g_assert_cmpuint(cache_next_record_slot(0, 254, ring), ==, segment);
	g_assert_cmpuint(cache_next_record_slot(0, 255, ring), ==, segment);
	g_assert_cmpuint(cache_next_record_slot(254, 0, ring), ==, segment);
	g_assert_cmpuint(cache_next_record_slot(254, 1, ring), ==, segment);
	g_assert_cmpuint(cache_next_record_slot(6 * segment, 100, ring), ==, 6 * segment + 101);
	g_assert_cmpuint(cache_next_record_slot(6 * segment, 254, ring), ==, 0);
	g_assert_cmpuint(cache_next_record_slot(6 * segment, 255, ring), ==, 0);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/cache-format/super", test_super);
	g_test_add_func("/cache-format/super-fields", test_super_fields);
	g_test_add_func("/cache-format/record", test_record);
	g_test_add_func("/cache-format/record-bits", test_record_bits);
	g_test_add_func("/cache-format/record-place", test_record_place);
	g_test_add_func("/cache-format/entries", test_entries);
	g_test_add_func("/cache-format/version-1", test_version_1);
	g_test_add_func("/cache-format/moved", test_moved);
	g_test_add_func("/cache-format/lengths", test_lengths);
	g_test_add_func("/cache-format/room", test_room);
	g_test_add_func("/cache-format/data", test_data);
	g_test_add_func("/cache-format/places", test_places);
	return g_test_run();
}
