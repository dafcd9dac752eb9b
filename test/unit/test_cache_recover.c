/* Recovery of caches whose logs are made by hand, whole and broken.
 *
 * A log is a list of operations, one record each; what recovery must find is
 * what the operations do, applied in order to a table of bytes. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "aio/file.h"
#include "cache/layer.h"
#include "cache/index/index.h"
#include "cache/index/layers.h"
#include "cache/offline.h"
#include "cache/format/format.h"
#include "cache/format/format_super.h"
#include "cache/format/super.h"
#include "cache/recover.h"

#define SEGMENTS 9
#define RING CACHE_SEGMENTS_MIN
#define LAYERS 4
#define BLOCKS 600
#define ABSENT 0
#define ZERO (-1)
#define STAMP 77

struct op {
	enum cache_entry_kind kind;
	uint32_t layer;
	uint64_t block;
	uint64_t blocks;
	uint8_t byte;	     /* of the data; a LAYER's image */
	uint64_t stamp;	     /* of a LAYER */
	uint64_t generation; /* likewise */
	uint64_t order;	     /* of what was moved; of a barrier that is named */
	/* Where it is. */
	uint64_t slot;
	uint64_t sequence;
	uint64_t previous;
};

struct log {
	char *path;
	int fd;
	struct cache_super_ondisk super;
	struct cache_record_place place;
	uint64_t ring;
	uint64_t slot;
	uint64_t durable;
	uint32_t depth; /* that records say */
	GArray *ops;
	unsigned tail; /* the first op that is still in the log */
};

struct model {
	int blocks[LAYERS + 1][BLOCKS];
	bool dirty[LAYERS + 1][BLOCKS];
	uint64_t stamp[LAYERS + 1];
	bool declared[LAYERS + 1];
};

static char *directory;

static struct op *op_at(const struct log *log, unsigned position)
{
	return &g_array_index(log->ops, struct op, position);
}

/* ---- Making a log -------------------------------------------------------- */

static void write_super(struct log *log)
{
	g_assert_cmpint(cache_super_write(log->fd, log->path, &log->super), ==, 0);
}

static struct log *log_new(void)
{
	static const uint8_t uuid[16] = "one certain uuid", pool[16] = "one certain pool";
	static int number;
	struct log *log = g_new0(struct log, 1);
	le64 cache_id;

	log->path = g_strdup_printf("%s/%d.cache", directory, number++);
	log->fd = open(log->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	g_assert_cmpint(log->fd, >=, 0);
	g_assert_cmpint(ftruncate(log->fd, (off_t)cache_segment_offset(SEGMENTS)), ==, 0);
	cache_super_init(&log->super, uuid, pool, "/pool", SEGMENTS);
	log->super.ring_segments = le64_of(RING);
	log->super.generation = le64_of(3);
	log->super.end_sequence = le64_of(0);
	write_super(log);
	memcpy(&cache_id, uuid, sizeof(cache_id));
	log->place.cache_id = le64_get(cache_id);
	log->place.generation = 3;
	log->place.sequence = 1;
	log->place.mount_sequence = 1;
	log->depth = UINT32_MAX;
	log->ring = RING;
	log->ops = g_array_new(FALSE, TRUE, sizeof(struct op));
	return log;
}

static void log_free(struct log *log)
{
	close(log->fd);
	g_assert_cmpint(unlink(log->path), ==, 0);
	g_array_unref(log->ops);
	g_free(log->path);
	g_free(log);
}

static bool has_data(const struct op *op)
{
	return cache_kind_has_data(op->kind);
}

static void encode_layer(struct cache_record_ondisk *record, const struct op *op)
{
	struct cache_layer_ondisk layer = {
		.stamp = le64_of(op->stamp),
		.size_bytes = le64_of(BLOCKS * BLOCK_SIZE),
		.generation = le64_of(op->generation),
	};
	le64 *words;

	memset(layer.identity, op->byte, sizeof(layer.identity));
	layer.name_bytes = le32_of(8);
	words = cache_record_add(record, op->layer, CACHE_ENTRY_LAYER, 0, sizeof(layer) / sizeof(le64) + 1);
	memcpy(words, &layer, sizeof(layer));
	memcpy(words + sizeof(layer) / sizeof(le64), "somename", 8);
}

static bool is_change(const struct op *op)
{
	return op->kind == CACHE_ENTRY_LAYER ? op->generation != 0
					     : op->kind != CACHE_ENTRY_CLEAN && op->kind != CACHE_ENTRY_DROP;
}

static uint64_t last_change(const struct log *log, uint32_t layer)
{
	for (unsigned i = log->ops->len; i-- > 0;)
		if (op_at(log, i)->layer == layer && is_change(op_at(log, i)))
			return op_at(log, i)->sequence;
	return 0;
}

/* Of all layers, as there are few. */
static void encode_lasts(const struct log *log, struct cache_record_ondisk *record, const struct op *op)
{
	if (log->depth == 0)
		return;
	for (uint32_t layer = 1; layer <= LAYERS; layer++)
		if (last_change(log, layer) || (layer == op->layer && is_change(op)))
			cache_record_add(record, layer, CACHE_ENTRY_LAST, last_change(log, layer), 0);
	record->depth = le32_of(log->depth);
}

static void encode(const struct log *log, struct cache_record_ondisk *record, const struct op *op, const uint8_t *data)
{
	cache_record_begin(record);
	encode_lasts(log, record, op);
	if (op->kind == CACHE_ENTRY_MIGRATE || op->kind == CACHE_ENTRY_MIGRATED)
		cache_record_add(record, op->layer, op->kind, op->order, 0);
	else if (op->kind == CACHE_ENTRY_BARRIER)
		cache_record_add(record, op->layer, CACHE_ENTRY_BARRIER, 0, 0);
	else if (op->kind == CACHE_ENTRY_MOVED)
		for (uint64_t i = 0; i < op->blocks; i++)
			*cache_record_add_moved(record, op->layer, op->block + i, op->order) =
				le64_of(cache_data_checksum(data));
	else if (op->kind == CACHE_ENTRY_LAYER)
		encode_layer(record, op);
	else if (op->kind == CACHE_ENTRY_DROP)
		cache_record_add(record, op->layer, CACHE_ENTRY_DROP, 0, 0);
	else if (has_data(op))
		for (uint64_t i = 0; i < op->blocks; i++)
			*cache_record_add_block(record, op->layer, op->kind, op->block + i) =
				le64_of(cache_data_checksum(data));
	else
		*cache_record_add(record, op->layer, op->kind, op->block, 1) = le64_of(op->blocks);
}

static void write_at(struct log *log, const void *data, size_t length, uint64_t offset)
{
	g_assert_cmpint(aio_fd_write(log->fd, data, length, offset), ==, 0);
}

static void advance(struct log *log, const struct cache_record_ondisk *record)
{
	log->place.sequence++;
	log->place.previous = le64_get(record->checksum);
	log->slot = cache_next_record_slot(log->slot, le32_get(record->blocks), log->ring);
}

/* Moves on to the next segment where the record would cross the end of this
 * one: the writer's buffers do not leave such gaps, so data is cut instead. */
static void fit(const struct log *log, struct op *op)
{
	if (has_data(op))
		op->blocks = MIN(op->blocks, CACHE_SEGMENT_BLOCKS - 1 - log->slot % CACHE_SEGMENT_BLOCKS);
}

static void append(struct log *log, struct op op)
{
	struct cache_record_ondisk record;
	uint8_t data[BLOCK_SIZE];

	memset(data, op.byte, sizeof(data));
	fit(log, &op);
	log->place.position = cache_slot_offset(log->slot);
	encode(log, &record, &op, data);
	cache_record_seal(&record, &log->place, log->durable);
	write_at(log, &record, sizeof(record), log->place.position);
	for (unsigned i = 0; i < le32_get(record.blocks); i++)
		write_at(log, data, sizeof(data), cache_slot_offset(log->slot + 1 + i));
	op.slot = log->slot;
	op.sequence = log->place.sequence;
	op.previous = log->place.previous;
	g_array_append_val(log->ops, op);
	advance(log, &record);
}

static void put(struct log *log, uint32_t layer, uint64_t block, uint64_t blocks, uint8_t byte)
{
	append(log,
	       (struct op){.kind = CACHE_ENTRY_CLEAN, .layer = layer, .block = block, .blocks = blocks, .byte = byte});
}

static void declare(struct log *log, uint32_t layer, uint64_t stamp)
{
	append(log, (struct op){.kind = CACHE_ENTRY_LAYER, .layer = layer, .byte = (uint8_t)layer, .stamp = stamp});
}

static void spoil(struct log *log, uint64_t offset)
{
	uint8_t byte;

	g_assert_cmpint(aio_fd_read(log->fd, &byte, 1, offset), ==, 0);
	byte ^= 0x10;
	write_at(log, &byte, 1, offset);
}

static void spoil_data(struct log *log, unsigned position)
{
	spoil(log, cache_slot_offset(op_at(log, position)->slot + 1) + 5);
}

/* What a mount after a crash does: goes on behind op COUNT with a new generation. */
static void crash_and_go_on(struct log *log, unsigned count)
{
	struct cache_record_ondisk record;
	const struct op *last = op_at(log, count - 1);

	g_assert_cmpint(aio_fd_read(log->fd, &record, sizeof(record), cache_slot_offset(last->slot)), ==, 0);
	log->slot = last->slot;
	log->place.sequence = last->sequence;
	advance(log, &record);
	g_array_set_size(log->ops, count);
	log->place.generation++;
	log->place.mount_sequence = log->place.sequence;
	log->super.generation = le64_of(log->place.generation);
	write_super(log);
}

/* The log begins with the first op in or behind SEGMENT from now on. */
static void move_tail(struct log *log, unsigned position)
{
	const struct op *op = op_at(log, position);

	g_assert_cmpuint(op->slot % CACHE_SEGMENT_BLOCKS, ==, 0);
	log->tail = position;
	log->super.tail_segment = le64_of(op->slot / CACHE_SEGMENT_BLOCKS);
	log->super.tail_sequence = le64_of(op->sequence);
	log->super.tail_previous = le64_of(op->previous);
	write_super(log);
}

/* ---- What must be found -------------------------------------------------- */

static void model_set(struct model *model, const struct op *op, int value)
{
	for (uint64_t block = op->block; block < MIN(op->block + op->blocks, BLOCKS); block++) {
		model->blocks[op->layer][block] = value;
		model->dirty[op->layer][block] = op->kind == CACHE_ENTRY_DIRTY;
	}
}

static void model_apply(struct model *model, const struct op *op)
{
	if (op->kind == CACHE_ENTRY_LAYER) {
		model->declared[op->layer] = true;
		model->stamp[op->layer] = op->stamp;
	} else if (op->kind == CACHE_ENTRY_DROP) {
		model->declared[op->layer] = false;
	} else {
		model_set(model, op, op->kind == CACHE_ENTRY_ZERO ? ZERO : has_data(op) ? op->byte : ABSENT);
	}
}

/* Of the first COUNT operations, from the tail on. */
static void model_fill(struct model *model, const struct log *log, unsigned count)
{
	memset(model, 0, sizeof(*model));
	for (unsigned i = log->tail; i < count; i++)
		model_apply(model, op_at(log, i));
	for (unsigned layer = 1; layer <= LAYERS; layer++)
		for (unsigned block = 0; block < BLOCKS; block++)
			if (!model->declared[layer] || (model->stamp[layer] == 0 && !model->dirty[layer][block] &&
							model->blocks[layer][block] != ZERO))
				model->blocks[layer][block] = ABSENT;
}

struct recovered {
	struct index *index;
	struct layers *layers;
	struct cache_log_end end;
	struct cache_super_ondisk super;
};

static void recover(struct log *log, struct recovered *found)
{
	g_autoptr(GError) error = NULL;
	uint64_t bytes = cache_segment_offset(SEGMENTS);

	g_assert_cmpint(cache_super_read(log->fd, log->path, bytes, &found->super, NULL, &error), ==, CACHE_SUPER_GOOD);
	found->index = index_new(SEGMENTS * CACHE_SEGMENT_BLOCKS, &error);
	found->layers = layers_new(NULL);
	cache_recover(log->fd, &found->super, found->index, found->layers, &found->end);
}

static void recovered_clear(struct recovered *found)
{
	cache_log_end_clear(&found->end);
	index_free(found->index);
	layers_free(found->layers);
}

/* What a reader would be given: a byte, ABSENT (also where the data does not
 * match its checksum), or ZERO. */
static int served(struct log *log, const struct recovered *found, uint32_t layer, uint64_t block)
{
	struct cache_layer *known = layers_by_id(found->layers, layer);
	uint32_t slot = index_find(found->index, layer, block);
	uint8_t data[BLOCK_SIZE];
	struct index_entry entry;

	if (known && known->zeros && intervals_contains(known->zeros, block, 1, NULL)) {
		g_assert_cmpuint(slot, ==, INDEX_NO_SLOT);
		return ZERO;
	}
	if (!known || slot == INDEX_NO_SLOT)
		return ABSENT;
	index_get(found->index, slot, &entry);
	g_assert_false(entry.flags & INDEX_PROVEN);
	g_assert_cmpint(aio_fd_read(log->fd, data, sizeof(data), cache_slot_offset(slot)), ==, 0);
	if (cache_checksum_short(cache_data_checksum(data)) != entry.checksum)
		return ABSENT;
	g_assert_cmpint(memcmp(data, data + 1, sizeof(data) - 1), ==, 0);
	return data[0];
}

static void assert_layer(struct log *log, const struct recovered *found, const struct model *model, uint32_t id)
{
	struct cache_layer *layer = layers_by_id(found->layers, id);
	uint64_t live = 0, pinned = 0;

	for (unsigned block = 0; block < BLOCKS; block++) {
		g_assert_cmpint(served(log, found, id, block), ==, model->blocks[id][block]);
		live += model->blocks[id][block] > 0;
		pinned += model->blocks[id][block] > 0 && model->dirty[id][block];
	}
	g_assert_true(!!layer == model->declared[id]);
	if (!layer)
		return;
	g_assert_cmpuint(layer->live_blocks, ==, live);
	g_assert_cmpuint(layer->pinned_blocks, ==, pinned);
	g_assert_cmpuint(layer->stamp, ==, model->stamp[id]);
	g_assert_cmpstr(layer->name, ==, "somename");
	g_assert_true(layer->declared);
	g_assert_cmpuint(layer->identity[3], ==, id);
}

/* Recovery finds the first COUNT operations and no more. */
static void assert_recovers(struct log *log, unsigned count)
{
	struct recovered found;
	struct model model;

	recover(log, &found);
	model_fill(&model, log, count);
	g_assert_cmpuint(found.end.records, ==, count - log->tail);
	for (uint32_t layer = 1; layer <= LAYERS; layer++)
		assert_layer(log, &found, &model, layer);
	if (count == log->ops->len) {
		g_assert_cmpuint(found.end.slot, ==, log->slot);
		g_assert_cmpuint(found.end.sequence, ==, log->place.sequence);
		g_assert_cmphex(found.end.previous, ==, log->place.previous);
	}
	recovered_clear(&found);
}

static void count_finding(void *opaque, const char *sentence)
{
	g_test_message("finding: %s", sentence);
	++*(unsigned *)opaque;
}

static unsigned check(const struct log *log, struct cache_check_result *result)
{
	g_autoptr(GError) error = NULL;
	unsigned findings = 0;

	g_assert_true(cache_check(log->path, count_finding, &findings, result, &error));
	g_assert_cmpuint(result->damages, ==, findings);
	return findings;
}

static void assert_damages(const struct log *log, unsigned damages)
{
	struct cache_check_result result;

	g_assert_cmpuint(check(log, &result), ==, damages);
}

/* ---- Superblock ---------------------------------------------------------- */

static enum cache_super_result read_super(struct log *log, struct cache_super_ondisk *super, unsigned *bad)
{
	g_autoptr(GError) error = NULL;
	enum cache_super_result result =
		cache_super_read(log->fd, log->path, cache_segment_offset(SEGMENTS), super, bad, &error);

	g_assert_true(!!error == (result == CACHE_SUPER_FOREIGN));
	return result;
}

static void test_super(void)
{
	struct log *log = log_new();
	struct cache_super_ondisk super;
	unsigned bad;

	for (unsigned copy = 0; copy < CACHE_SUPER_COPIES; copy++) {
		g_assert_cmpint(read_super(log, &super, &bad), ==, CACHE_SUPER_GOOD);
		g_assert_cmpuint(bad, ==, 0);
		spoil(log, CACHE_SUPER_OFFSET(copy) + 200);
		g_assert_cmpint(read_super(log, &super, &bad), ==, CACHE_SUPER_GOOD);
		g_assert_cmpuint(bad, ==, 1);
		g_assert_cmpuint(le64_get(super.generation), ==, le64_get(log->super.generation));
		assert_damages(log, 0);
		log->super.generation = le64_of(40 + copy);
		write_super(log);
	}
	spoil(log, CACHE_SUPER_OFFSET(0) + 200);
	spoil(log, CACHE_SUPER_OFFSET(1) + 4000);
	g_assert_cmpint(read_super(log, &super, &bad), ==, CACHE_SUPER_FOREIGN);
	assert_damages(log, 1);
	log_free(log);
}

static void test_blank(void)
{
	struct log *log = log_new();
	struct cache_super_ondisk super;
	static uint8_t zeros[CACHE_SUPER_OFFSET(1) + CACHE_SUPER_BYTES];
	g_autoptr(GError) error = NULL;

	write_at(log, zeros, sizeof(zeros), 0);
	g_assert_cmpint(read_super(log, &super, NULL), ==, CACHE_SUPER_BLANK);
	g_assert_cmpint(cache_super_read(log->fd, log->path, 0, &super, NULL, &error), ==, CACHE_SUPER_BLANK);
	g_assert_cmpint(cache_super_read(log->fd, log->path, 12, &super, NULL, &error), ==, CACHE_SUPER_FOREIGN);
	g_clear_error(&error);
	write_at(log, "x", 1, 5000);
	g_assert_cmpint(read_super(log, &super, NULL), ==, CACHE_SUPER_FOREIGN);
	log_free(log);
}

/* A write torn at any point leaves the old one or the new one, and what is
 * written after that survives the next. */
static void test_super_torn(void)
{
	for (unsigned torn = 0; torn < CACHE_SUPER_COPIES; torn++) {
		struct log *log = log_new();
		struct cache_super_ondisk super = log->super;
		uint64_t sequence = le64_get(super.sequence) + 1 + torn;

		super.generation = le64_of(50);
		g_assert_cmpint(cache_super_write(log->fd, log->path, &super), ==, 0);
		spoil(log, CACHE_SUPER_OFFSET(sequence % 2) + 9);
		if (torn == 0) { /* the second copy was not written yet */
			struct cache_super_ondisk old = log->super;

			cache_super_seal(&old, le64_get(old.sequence) % 2);
			write_at(log, &old, sizeof(old), CACHE_SUPER_OFFSET(le64_get(old.sequence) % 2));
		}
		g_assert_cmpint(read_super(log, &super, NULL), ==, CACHE_SUPER_GOOD);
		g_assert_cmpuint(le64_get(super.generation), ==, torn ? 50 : 3);
		super.generation = le64_of(60);
		g_assert_cmpint(cache_super_write(log->fd, log->path, &super), ==, 0);
		spoil(log, CACHE_SUPER_OFFSET(torn));
		g_assert_cmpint(read_super(log, &super, NULL), ==, CACHE_SUPER_GOOD);
		g_assert_cmpuint(le64_get(super.generation), ==, 60);
		log_free(log);
	}
}

/* ---- Logs ---------------------------------------------------------------- */

static void test_empty(void)
{
	struct log *log = log_new();

	assert_recovers(log, 0);
	assert_damages(log, 0);
	log_free(log);
}

static void test_one(void)
{
	struct log *log = log_new();

	declare(log, 1, STAMP);
	put(log, 1, 100, 30, 5);
	assert_recovers(log, 2);
	assert_damages(log, 0);
	log_free(log);
}

static struct op random_op(void)
{
	static const enum cache_entry_kind kinds[] = {CACHE_ENTRY_CLEAN, CACHE_ENTRY_CLEAN, CACHE_ENTRY_CLEAN,
						      CACHE_ENTRY_DIRTY, CACHE_ENTRY_DIRTY, CACHE_ENTRY_ZERO,
						      CACHE_ENTRY_FORGET};
	struct op op = {
		.kind = kinds[g_test_rand_int_range(0, G_N_ELEMENTS(kinds))],
		.layer = (uint32_t)g_test_rand_int_range(1, LAYERS + 1),
		.block = (uint64_t)g_test_rand_int_range(0, BLOCKS),
		.byte = (uint8_t)g_test_rand_int_range(1, 256),
	};

	op.blocks = (uint64_t)g_test_rand_int_range(1, (gint32)(BLOCKS - op.block) / g_test_rand_int_range(1, 9) + 2);
	if (has_data(&op))
		op.blocks = MIN(op.blocks, BLOCKS - op.block);
	op.blocks = MIN(op.blocks, 255);
	return op;
}

static unsigned used_segments(const struct log *log)
{
	uint64_t first = le64_get(log->super.tail_segment);

	return (unsigned)((log->slot / CACHE_SEGMENT_BLOCKS + log->ring - first) % log->ring);
}

/* To the next segment's first record; all layers are declared again before. */
static void reclaim(struct log *log)
{
	unsigned position = log->tail + 1;
	struct model model;

	model_fill(&model, log, log->ops->len);
	for (uint32_t layer = 1; layer <= LAYERS; layer++)
		declare(log, layer, model.stamp[layer]);
	log->durable = log->place.sequence - 1;
	while (op_at(log, position)->slot % CACHE_SEGMENT_BLOCKS)
		position++;
	move_tail(log, position);
}

/* Several times round the ring. */
static void test_many(void)
{
	struct log *log = log_new();

	for (uint32_t layer = 1; layer <= LAYERS; layer++)
		declare(log, layer, layer == 3 ? 0 : STAMP);
	for (int i = 0; i < 1500; i++) {
		append(log, random_op());
		if (used_segments(log) > RING - 3)
			reclaim(log);
		if (i % 50 == 0)
			assert_recovers(log, log->ops->len);
	}
	g_assert_cmpuint(log->tail, >, 300);
	assert_recovers(log, log->ops->len);
	assert_damages(log, 0);
	log_free(log);
}

/* Records without data, so that a header fills each block of the segments. */
static void test_small_records(void)
{
	struct log *log = log_new();

	declare(log, 1, STAMP);
	for (uint64_t i = 0; i < 700; i++)
		append(log,
		       (struct op){.kind = CACHE_ENTRY_ZERO, .layer = 1, .block = i * 7 % BLOCKS, .blocks = i % 3 + 1});
	assert_recovers(log, log->ops->len);
	log_free(log);
}

static void test_torn(void)
{
	struct log *log = log_new();

	declare(log, 1, STAMP);
	put(log, 1, 0, 20, 1);
	put(log, 1, 10, 20, 2);
	spoil_data(log, 2);
	assert_recovers(log, 2);
	assert_damages(log, 0);
	crash_and_go_on(log, 2);
	put(log, 1, 10, 20, 3);
	assert_recovers(log, 3);
	log_free(log);
}

/* Crash: record 2 torn, 3 whole. Again: record 2 anew, as long, torn or not
 * written at all. Record 3 must not come back. */
static void test_torn_before_whole(void)
{
	for (int second = 0; second < 3; second++) {
		struct log *log = log_new();

		declare(log, 1, STAMP);
		put(log, 1, 0, 20, 1);
		put(log, 1, 10, 20, 2);
		put(log, 1, 30, 20, 3);
		spoil_data(log, 2);
		assert_recovers(log, 2);
		crash_and_go_on(log, 2);
		if (second > 0)
			put(log, 1, 10, 20, 4);
		if (second > 1)
			spoil_data(log, 2);
		assert_recovers(log, second == 1 ? 3 : 2);
		assert_damages(log, 0);
		log_free(log);
	}
}

/* What an earlier generation left behind the end is not taken, even where it
 * begins exactly there. */
static void test_older_generation(void)
{
	struct log *log = log_new();

	declare(log, 1, STAMP);
	for (unsigned i = 0; i < 10; i++)
		put(log, 1, i * 20, 20, (uint8_t)(i + 1));
	spoil_data(log, 3);
	assert_recovers(log, 3);
	crash_and_go_on(log, 3);
	for (unsigned i = 3; i < 7; i++) {
		put(log, 1, i * 20, 20, (uint8_t)(i + 100));
		assert_recovers(log, i + 1);
	}
	assert_damages(log, 0);
	log_free(log);
}

/* A generation can only rise along the log. */
static void test_falling_generation(void)
{
	struct log *log = log_new();

	declare(log, 1, STAMP);
	put(log, 1, 0, 1, 1);
	log->place.generation--;
	put(log, 1, 1, 1, 2);
	assert_recovers(log, 2);
	log_free(log);
}

/* The data of durable records is not looked at by recovery, but by the check;
 * it ends the log where nothing says that it was durable. */
static void test_durable(void)
{
	struct log *log = log_new();
	struct cache_check_result result;
	struct recovered found;

	declare(log, 1, STAMP);
	put(log, 1, 0, 20, 1);
	put(log, 1, 20, 20, 2);
	log->durable = 2;
	put(log, 1, 40, 20, 3);
	spoil_data(log, 1);
	recover(log, &found);
	g_assert_cmpuint(found.end.records, ==, 4);
	g_assert_cmpuint(found.end.durable, ==, 2);
	recovered_clear(&found);
	g_assert_cmpuint(check(log, &result), ==, 1);
	g_assert_cmpuint(result.records, ==, 4);
	g_assert_cmpuint(result.blocks, ==, 60);
	spoil_data(log, 1);
	spoil_data(log, 2);
	assert_recovers(log, 2);
	log_free(log);
}

/* ---- Holes --------------------------------------------------------------- */

static void dirty(struct log *log, uint32_t layer, uint64_t block, uint64_t blocks, uint8_t byte)
{
	append(log,
	       (struct op){.kind = CACHE_ENTRY_DIRTY, .layer = layer, .block = block, .blocks = blocks, .byte = byte});
}

static void own(struct log *log, uint32_t layer)
{
	append(log, (struct op){.kind = CACHE_ENTRY_LAYER, .layer = layer, .byte = (uint8_t)layer, .generation = 5});
}

static void spoil_header(struct log *log, unsigned position)
{
	spoil(log, cache_slot_offset(op_at(log, position)->slot) + 100);
}

/* The log has one hole, of op FIRST up to END; which layers have lost changes, as bits. */
static void assert_hole(struct log *log, unsigned first, unsigned end, unsigned incomplete)
{
	struct recovered found;
	const struct cache_hole *hole;

	recover(log, &found);
	g_assert_cmpuint(found.end.holes->len, ==, 1);
	hole = &g_array_index(found.end.holes, struct cache_hole, 0);
	g_assert_cmpuint(hole->first, ==, op_at(log, first)->sequence);
	g_assert_cmpuint(hole->end, ==, op_at(log, end)->sequence);
	g_assert_cmpuint(hole->slot, ==, op_at(log, first)->slot);
	g_assert_cmpuint(hole->end_slot, ==, op_at(log, end)->slot);
	g_assert_true(hole->certain);
	g_assert_cmpuint(found.end.records, ==, log->ops->len - log->tail - (end - first));
	g_assert_cmpuint(found.end.slot, ==, log->slot);
	for (unsigned layer = 1; layer <= LAYERS; layer++)
		if (layers_by_id(found.layers, layer))
			g_assert_true(layers_by_id(found.layers, layer)->incomplete == !!(incomplete & 1u << layer));
	recovered_clear(&found);
}

/* What recovery finds of a layer, in spite of a hole. */
static void assert_served(struct log *log, uint32_t layer, uint64_t block, int value)
{
	struct recovered found;

	recover(log, &found);
	g_assert_cmpint(served(log, &found, layer, block), ==, value);
	recovered_clear(&found);
}

/* A header that is damaged is the end of the log, unless it is known to have been durable:
 * then the log goes on behind it. */
static void test_lost_header(void)
{
	struct log *log = log_new();

	declare(log, 1, STAMP);
	put(log, 1, 0, 200, 1);
	put(log, 1, 300, 100, 2);
	put(log, 1, 20, 20, 2);
	spoil_header(log, 2);
	assert_recovers(log, 2);
	assert_damages(log, 0);
	log->durable = 3;
	put(log, 1, 40, 20, 3);
	assert_hole(log, 2, 3, 0);
	assert_damages(log, 1);
	assert_served(log, 1, 45, 3);
	assert_served(log, 1, 25, 2);
	spoil_header(log, 2);
	assert_damages(log, 0);
	assert_recovers(log, 5);
	log_free(log);
}

/* Layers 1 and 2 are written back, 3 is not. */
static struct log *log_of_three(void)
{
	struct log *log = log_new();

	own(log, 1);
	own(log, 2);
	declare(log, 3, STAMP);
	dirty(log, 1, 0, 10, 1); /* 3 */
	dirty(log, 2, 0, 10, 2);
	put(log, 3, 0, 10, 3);
	dirty(log, 1, 5, 10, 4); /* 6 */
	dirty(log, 2, 5, 10, 5);
	log->durable = log->place.sequence - 1;
	return log;
}

/* A missing record is missed by whom it changed, and by nobody else. */
static void test_whose_record(void)
{
	static const struct {
		unsigned position, incomplete;
	} lost[] = {{3, 1u << 1}, {4, 1u << 2}, {5, 0}, {6, 1u << 1}};

	for (unsigned i = 0; i < G_N_ELEMENTS(lost); i++) {
		struct log *log = log_of_three();

		put(log, 3, 20, 1, 6);
		spoil_header(log, lost[i].position);
		assert_hole(log, lost[i].position, lost[i].position + 1, lost[i].incomplete);
		assert_damages(log, 1 + (lost[i].incomplete != 0));
		assert_served(log, 2, 12, lost[i].position == 7 ? ABSENT : 5);
		log_free(log);
	}
}

/* Many at once, and the next segment goes on. */
static void test_lost_segment(void)
{
	struct log *log = log_of_three();
	unsigned first = log->ops->len, end;
	uint8_t zeros[BLOCK_SIZE] = {0};

	while (log->slot < 3 * CACHE_SEGMENT_BLOCKS)
		dirty(log, 2, log->ops->len % 300, 40, (uint8_t)(log->ops->len % 200));
	end = log->ops->len - 1;
	while (op_at(log, end)->slot >= 2 * CACHE_SEGMENT_BLOCKS + 100)
		end--;
	end++;
	log->durable = log->place.sequence - 1;
	put(log, 3, 20, 1, 6);
	for (uint64_t slot = op_at(log, first)->slot; slot < op_at(log, end)->slot; slot++)
		write_at(log, zeros, sizeof(zeros), cache_slot_offset(slot));
	assert_hole(log, first, end, 1u << 2);
	assert_served(log, 1, 12, 4);
	log_free(log);
}

/* Who is not mentioned behind the hole may have been in it, where nobody says more. */
static void test_no_witness(void)
{
	static const struct {
		uint32_t depth;
		unsigned incomplete;
	} told[] = {{UINT32_MAX, 1u << 1}, {0, 1u << 1 | 1u << 2}};

	for (unsigned i = 0; i < G_N_ELEMENTS(told); i++) {
		struct log *log = log_new();

		own(log, 1);
		own(log, 2);
		dirty(log, 2, 0, 10, 1);
		dirty(log, 1, 0, 10, 2); /* 3 */
		log->durable = log->place.sequence - 1;
		log->depth = told[i].depth;
		put(log, 3, 20, 1, 6);
		spoil_header(log, 3);
		assert_hole(log, 3, 4, told[i].incomplete);
		log_free(log);
	}
}

/* The image has what is missing: nothing is lost, and what is older is not shown. */
static void test_lost_and_migrated(void)
{
	struct log *log = log_of_three();
	uint64_t barrier;

	append(log, (struct op){.kind = CACHE_ENTRY_BARRIER, .layer = 1});
	barrier = log->place.sequence - 1;
	append(log, (struct op){.kind = CACHE_ENTRY_MIGRATE, .layer = 1, .order = barrier});
	log->durable = log->place.sequence - 1;
	spoil_header(log, 6);
	assert_served(log, 1, 2, 1);
	assert_hole(log, 6, 7, 1u << 1);
	append(log, (struct op){.kind = CACHE_ENTRY_MIGRATED, .layer = 1, .order = barrier});
	assert_hole(log, 6, 7, 0);
	assert_served(log, 1, 2, ABSENT);
	assert_served(log, 2, 2, 2);
	log_free(log);
}

/* A mount goes on behind the hole, and the next one sees it still. */
static void test_hole_stays(void)
{
	struct log *log = log_of_three();

	spoil_header(log, 6);
	dirty(log, 2, 50, 1, 9);
	log->place.generation++;
	log->place.mount_sequence = log->place.sequence;
	log->super.generation = le64_of(log->place.generation);
	write_super(log);
	dirty(log, 2, 60, 1, 9);
	assert_hole(log, 6, 7, 1u << 1);
	assert_served(log, 2, 60, 9);
	log_free(log);
}

/* The last ones: only a clean end knows that they were there. */
static void test_clean_end(void)
{
	struct log *log = log_of_three();
	struct recovered found;

	log->durable = 0;
	dirty(log, 1, 90, 1, 9);
	dirty(log, 1, 91, 1, 9);
	spoil_header(log, 8);
	assert_recovers(log, 8);
	log->super.end_sequence = le64_of(log->place.sequence);
	write_super(log);
	recover(log, &found);
	g_assert_cmpuint(found.end.holes->len, ==, 1);
	g_assert_cmpuint(found.end.records, ==, 9);
	g_assert_true(layers_by_id(found.layers, 1)->incomplete);
	g_assert_false(layers_by_id(found.layers, 2)->incomplete);
	recovered_clear(&found);
	spoil_header(log, 9);
	recover(log, &found);
	g_assert_cmpuint(found.end.records, ==, 8);
	g_assert_cmpuint(found.end.sequence, ==, log->place.sequence);
	g_assert_cmpuint(found.end.slot, ==, CACHE_SEGMENT_BLOCKS);
	g_assert_true(layers_by_id(found.layers, 1)->incomplete);
	g_assert_true(layers_by_id(found.layers, 2)->incomplete);
	g_assert_false(layers_by_id(found.layers, 3)->incomplete);
	recovered_clear(&found);
	log_free(log);
}

/* A mount could not read what was behind the log, and began in the next segment. What was there
 * can be read again: a record, after all. */
static void test_goes_on_elsewhere(void)
{
	struct log *log = log_of_three();
	struct recovered found;

	dirty(log, 1, 80, 1, 9); /* 8: what could not be read */
	log->slot = CACHE_SEGMENT_BLOCKS;
	log->place.previous = 0;
	log->place.generation++;
	log->place.mount_sequence = log->place.sequence;
	log->durable = log->place.sequence - 1;
	dirty(log, 2, 60, 1, 9);
	dirty(log, 2, 61, 1, 9);
	recover(log, &found);
	g_assert_cmpuint(found.end.holes->len, ==, 0);
	g_assert_cmpuint(found.end.records, ==, 11);
	g_assert_false(layers_by_id(found.layers, 1)->incomplete);
	recovered_clear(&found);
	assert_served(log, 1, 80, 9);
	assert_served(log, 2, 61, 9);
	spoil_header(log, 8);
	assert_hole(log, 8, 9, 1u << 1);
	log_free(log);
}

/* What a mount left behind a torn record is void, also where the next mount's own record in
 * its place is damaged. */
static void test_void_behind_damage(void)
{
	struct log *log = log_of_three();

	dirty(log, 1, 90, 4, 7);  /* 8: torn */
	dirty(log, 1, 95, 20, 7); /* 9: whole, and void */
	spoil_data(log, 8);
	assert_recovers(log, 8);
	crash_and_go_on(log, 8);
	log->durable = 8;
	dirty(log, 1, 90, 2, 8);
	dirty(log, 2, 90, 1, 8);
	log->durable = 10;
	put(log, 3, 30, 1, 8);
	assert_recovers(log, 11);
	spoil_header(log, 8);
	assert_hole(log, 8, 9, 1u << 1);
	assert_served(log, 1, 95, ABSENT);
	spoil_header(log, 8);
	assert_recovers(log, 11);
	log_free(log);
}

/* ---- What moved ------------------------------------------------------------ */

static void test_moved(void)
{
	struct log *log = log_of_three();
	struct recovered found;
	struct index_entry entry;

	append(log, (struct op){.kind = CACHE_ENTRY_BARRIER, .layer = 1}); /* order 9 */
	dirty(log, 1, 12, 1, 8);
	append(log,
	       (struct op){.kind = CACHE_ENTRY_MOVED, .layer = 1, .block = 10, .blocks = 5, .byte = 4, .order = 7});
	assert_served(log, 1, 10, 4);
	assert_served(log, 1, 12, 8);
	append(log, (struct op){.kind = CACHE_ENTRY_MOVED,
				.layer = 1,
				.block = 14,
				.blocks = 1,
				.byte = 5,
				.order = 4 | CACHE_ORDER_SUPERSEDED});
	assert_served(log, 1, 14, 4);
	recover(log, &found);
	index_get(found.index, index_find(found.index, 1, 10), &entry);
	g_assert_cmpuint(entry.order, ==, 7);
	g_assert_cmpuint(entry.flags & (INDEX_PINNED | INDEX_LIVE), ==, INDEX_PINNED | INDEX_LIVE);
	g_assert_cmpuint(layers_by_id(found.layers, 1)->epochs->dirty, ==, 23); /* 10, 11, 13 and 14 once */
	recovered_clear(&found);
	append(log, (struct op){.kind = CACHE_ENTRY_MIGRATED, .layer = 1, .order = 9});
	recover(log, &found);
	index_get(found.index, index_find(found.index, 1, 10), &entry);
	g_assert_cmpuint(entry.flags & (INDEX_PINNED | INDEX_LIVE), ==, INDEX_LIVE);
	g_assert_cmpuint(layers_by_id(found.layers, 1)->epochs->dirty, ==, 1);
	recovered_clear(&found);
	log_free(log);
}

/* A ring that grows takes the new segments in when it comes to its old end. */
static void test_growth(void)
{
	struct log *log = log_new();

	declare(log, 1, STAMP);
	while (log->slot / CACHE_SEGMENT_BLOCKS < RING - 1)
		put(log, 1, 0, 255, 1);
	log->ring = SEGMENTS;
	log->super.ring_segments = le64_of(SEGMENTS);
	write_super(log);
	while (log->slot / CACHE_SEGMENT_BLOCKS < SEGMENTS - 1)
		put(log, 1, 0, 255, 2);
	assert_recovers(log, log->ops->len);
	reclaim(log);
	reclaim(log);
	while (log->slot / CACHE_SEGMENT_BLOCKS != 0)
		put(log, 1, 200, 255, 3);
	assert_recovers(log, log->ops->len);
	assert_damages(log, 0);
	log_free(log);
}

/* The whole ring: the log does not run into itself, and a mount has nowhere to go on. */
static void test_full_ring(void)
{
	struct log *log = log_new();
	struct cache_options options = {.path = log->path, .pool_path = "/pool"};
	g_autoptr(GError) error = NULL;

	declare(log, 1, STAMP);
	while (log->ops->len == 1 || log->slot != 0)
		put(log, 1, log->ops->len % 300, 255, (uint8_t)log->ops->len);
	assert_recovers(log, log->ops->len);
	memcpy(options.pool_id, log->super.pool_id, sizeof(options.pool_id));
	g_assert_null(cache_open(&options, &error));
	g_assert_nonnull(strstr(error->message, "leafctl cache create --force"));
	log_free(log);
}

/* ---- Layers -------------------------------------------------------------- */

static void test_layers(void)
{
	struct log *log = log_new();

	put(log, 1, 0, 10, 1); /* declared behind its blocks */
	put(log, 2, 0, 10, 2); /* never */
	declare(log, 1, STAMP);
	declare(log, 3, STAMP);
	put(log, 3, 0, 10, 3);
	append(log, (struct op){.kind = CACHE_ENTRY_DIRTY, .layer = 3, .block = 10, .blocks = 4, .byte = 4});
	append(log, (struct op){.kind = CACHE_ENTRY_ZERO, .layer = 3, .block = 12, .blocks = 4});
	assert_recovers(log, log->ops->len);
	declare(log, 3, 0); /* open for writing */
	put(log, 3, 5, 10, 5);
	assert_recovers(log, log->ops->len);
	declare(log, 3, STAMP + 1); /* closed */
	assert_recovers(log, log->ops->len);
	append(log, (struct op){.kind = CACHE_ENTRY_DROP, .layer = 3});
	assert_recovers(log, log->ops->len);
	assert_damages(log, 0);
	put(log, 3, 5, 10, 5);
	assert_recovers(log, log->ops->len);
	assert_damages(log, 1);
	log_free(log);
}

static void test_ids(void)
{
	struct log *log = log_new();
	struct recovered found;
	struct cache_layer *layer;

	declare(log, 1, STAMP);
	put(log, 90, 0, 10, 2);
	recover(log, &found);
	layer = layers_add(found.layers, NULL, "new");
	g_assert_cmpuint(layer->id, ==, 91);
	g_assert_true(layers_renew(found.layers, layer));
	g_assert_cmpuint(layer->id, ==, 92);
	g_assert_null(layers_by_id(found.layers, 91));
	layers_see_id(found.layers, CACHE_LAYER_MAX);
	g_assert_false(layers_renew(found.layers, layer));
	g_assert_null(layers_add(found.layers, NULL, "more"));
	g_assert_cmpuint(layers_memory_bytes(found.layers), >, 0);
	recovered_clear(&found);
	log_free(log);
}

/* The same image under a second id: what the first had is void. */
static void test_second_id(void)
{
	struct log *log = log_new();
	struct recovered found;

	declare(log, 1, STAMP);
	put(log, 1, 0, 10, 1);
	append(log, (struct op){.kind = CACHE_ENTRY_LAYER, .layer = 2, .byte = 1, .stamp = STAMP});
	put(log, 2, 5, 10, 2);
	recover(log, &found);
	g_assert_null(layers_by_id(found.layers, 1));
	g_assert_cmpuint(layers_by_id(found.layers, 2)->live_blocks, ==, 10);
	g_assert_cmpuint(index_find(found.index, 1, 0), ==, INDEX_NO_SLOT);
	recovered_clear(&found);
	log_free(log);
}

/* ---- Every bit ----------------------------------------------------------- */

/* Nothing wrong is served, and nothing that was durable is gone in silence. */
static void assert_harmless(struct log *log, unsigned durable)
{
	struct recovered found;
	struct model model;

	recover(log, &found);
	g_assert_cmpuint(found.end.records, >=, durable);
	model_fill(&model, log, (unsigned)found.end.records);
	for (uint32_t layer = 1; layer <= LAYERS; layer++)
		for (unsigned block = 0; block < BLOCKS; block++)
			g_assert_cmpint(served(log, &found, layer, block), ==, model.blocks[layer][block]);
	recovered_clear(&found);
}

static void flip_bits(struct log *log, uint64_t offset, unsigned bytes, unsigned step, unsigned durable)
{
	for (unsigned bit = (unsigned)g_test_rand_int_range(0, (gint32)step); bit < bytes * 8; bit += step) {
		struct cache_check_result result;
		uint8_t byte, flipped;

		g_assert_cmpint(aio_fd_read(log->fd, &byte, 1, offset + bit / 8), ==, 0);
		flipped = byte ^ (uint8_t)(1u << bit % 8);
		write_at(log, &flipped, 1, offset + bit / 8);
		if (check(log, &result) == 0)
			assert_harmless(log, durable);
		write_at(log, &byte, 1, offset + bit / 8);
	}
}

static void test_bits(void)
{
	unsigned step = g_test_thorough() ? 1 : 97;
	struct log *log = log_new();

	declare(log, 1, STAMP);
	put(log, 1, 0, 3, 1);
	append(log, (struct op){.kind = CACHE_ENTRY_ZERO, .layer = 1, .block = 2, .blocks = 3});
	log->durable = 3;
	put(log, 1, 4, 2, 2);
	for (unsigned copy = 0; copy < CACHE_SUPER_COPIES; copy++)
		flip_bits(log, CACHE_SUPER_OFFSET(copy), CACHE_SUPER_BYTES, step, 3);
	for (unsigned i = 0; i < log->ops->len; i++)
		flip_bits(log, cache_slot_offset(op_at(log, i)->slot), BLOCK_SIZE, step, 3);
	flip_bits(log, cache_slot_offset(op_at(log, 1)->slot + 1), 3 * BLOCK_SIZE, step * 3, 3);
	flip_bits(log, cache_slot_offset(op_at(log, 3)->slot + 1), 2 * BLOCK_SIZE, step * 3, 3);
	assert_damages(log, 0);
	assert_recovers(log, 4);
	log_free(log);
}

int main(int argc, char **argv)
{
	int status;

	g_test_init(&argc, &argv, NULL);
	directory = g_dir_make_tmp("cache-recover-XXXXXX", NULL);
	g_test_add_func("/cache-recover/super", test_super);
	g_test_add_func("/cache-recover/super-torn", test_super_torn);
	g_test_add_func("/cache-recover/blank", test_blank);
	g_test_add_func("/cache-recover/empty", test_empty);
	g_test_add_func("/cache-recover/one", test_one);
	g_test_add_func("/cache-recover/many", test_many);
	g_test_add_func("/cache-recover/small-records", test_small_records);
	g_test_add_func("/cache-recover/torn", test_torn);
	g_test_add_func("/cache-recover/torn-before-whole", test_torn_before_whole);
	g_test_add_func("/cache-recover/older-generation", test_older_generation);
	g_test_add_func("/cache-recover/falling-generation", test_falling_generation);
	g_test_add_func("/cache-recover/durable", test_durable);
	g_test_add_func("/cache-recover/lost-header", test_lost_header);
	g_test_add_func("/cache-recover/whose-record", test_whose_record);
	g_test_add_func("/cache-recover/lost-segment", test_lost_segment);
	g_test_add_func("/cache-recover/no-witness", test_no_witness);
	g_test_add_func("/cache-recover/lost-and-migrated", test_lost_and_migrated);
	g_test_add_func("/cache-recover/hole-stays", test_hole_stays);
	g_test_add_func("/cache-recover/clean-end", test_clean_end);
	g_test_add_func("/cache-recover/goes-on-elsewhere", test_goes_on_elsewhere);
	g_test_add_func("/cache-recover/void-behind-damage", test_void_behind_damage);
	g_test_add_func("/cache-recover/moved", test_moved);
	g_test_add_func("/cache-recover/growth", test_growth);
	g_test_add_func("/cache-recover/full-ring", test_full_ring);
	g_test_add_func("/cache-recover/layers", test_layers);
	g_test_add_func("/cache-recover/ids", test_ids);
	g_test_add_func("/cache-recover/second-id", test_second_id);
	g_test_add_func("/cache-recover/bits", test_bits);
	status = g_test_run();
	g_assert_cmpint(rmdir(directory), ==, 0);
	g_free(directory);
	return status;
}
