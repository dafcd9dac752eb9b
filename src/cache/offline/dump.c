/* The blocks of an unmounted cache, layer by layer, sorted by block. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "aio/file.h"
#include "cache/format/format.h"
#include "core/error.h"
#include "view.h"

struct live_block {
	uint32_t layer;
	uint32_t slot;
	uint64_t block;
};

struct dump {
	struct cache_view view;
	const char *name; /* of the layers; NULL: all, or */
	uint32_t only;	  /* this one's dirty blocks */
	GArray *blocks;	  /* struct live_block, by layer and block */
	uint8_t *data;	  /* of one segment */
	bool (*block)(void *opaque, const struct cache_layer_info *layer, uint64_t block, uint64_t blocks,
		      const void *data);
	void (*finding)(void *opaque, const char *sentence);
	void *opaque;
};

static int compare_blocks(const void *left, const void *right)
{
	const struct live_block *a = left, *b = right;

	if (a->layer != b->layer)
		return a->layer < b->layer ? -1 : 1;
	return (a->block > b->block) - (a->block < b->block);
}

static bool is_wanted(const struct dump *dump, const struct index_entry *entry)
{
	return dump->only == 0 || (entry->layer == dump->only && entry->flags & INDEX_PINNED);
}

static void collect_blocks(struct dump *dump)
{
	uint64_t slots = le64_get(dump->view.super.ring_segments) * CACHE_SEGMENT_BLOCKS;

	for (uint64_t slot = 0; slot < slots; slot++) {
		struct live_block block = {.slot = (uint32_t)slot};
		struct index_entry entry;

		index_get(dump->view.index, (uint32_t)slot, &entry);
		block.layer = entry.layer;
		block.block = entry.block;
		if (entry.flags & INDEX_LIVE && is_wanted(dump, &entry))
			g_array_append_val(dump->blocks, block);
	}
	g_array_sort(dump->blocks, compare_blocks);
}

static const struct live_block *live_block(const struct dump *dump, unsigned position)
{
	return &g_array_index(dump->blocks, struct live_block, position);
}

/* How many blocks from POSITION on one read gets. */
static unsigned run_length(const struct dump *dump, unsigned position)
{
	const struct live_block *first = live_block(dump, position);
	unsigned limit = CACHE_SEGMENT_BLOCKS - first->slot % CACHE_SEGMENT_BLOCKS, run = 1;

	while (run < limit && position + run < dump->blocks->len) {
		const struct live_block *next = live_block(dump, position + run);

		if (next->layer != first->layer || next->block != first->block + run || next->slot != first->slot + run)
			break;
		run++;
	}
	return run;
}

static bool is_right(struct dump *dump, uint32_t slot, const void *data)
{
	struct index_entry entry;

	index_get(dump->view.index, slot, &entry);
	return !(entry.flags & INDEX_LOST) && cache_checksum_short(cache_data_checksum(data)) == entry.checksum;
}

static void report(struct dump *dump, const struct cache_layer_info *layer, const struct live_block *block,
		   const char *what)
{
	g_autofree char *sentence =
		g_strdup_printf("block %" G_GUINT64_FORMAT " of layer %s, at byte %" G_GUINT64_FORMAT ", %s",
				block->block, layer->name, cache_slot_offset(block->slot), what);

	dump->finding(dump->opaque, sentence);
}

static void report_loss(struct dump *dump, const struct cache_layer_info *layer)
{
	g_autofree char *sentence = g_strdup_printf("%s: %s", layer->name, layer->loss);

	dump->finding(dump->opaque, sentence);
}

/* False: the caller's BLOCK said so. */
static bool dump_block(struct dump *dump, const struct cache_layer_info *layer, const struct live_block *block,
		       const void *data)
{
	if (is_right(dump, block->slot, data))
		return dump->block(dump->opaque, layer, block->block, 1, data);
	report(dump, layer, block, "is damaged");
	return true;
}

static bool dump_run(struct dump *dump, const struct cache_layer_info *layer, unsigned position, unsigned run)
{
	uint32_t slot = live_block(dump, position)->slot;
	bool readable =
		aio_fd_read(dump->view.fd, dump->data, (size_t)run << BLOCK_SHIFT, cache_slot_offset(slot)) == 0;

	for (unsigned i = 0; i < run; i++) {
		const struct live_block *block = live_block(dump, position + i);
		uint8_t *data = dump->data + ((size_t)i << BLOCK_SHIFT);

		if (!readable && aio_fd_read(dump->view.fd, data, BLOCK_SIZE, cache_slot_offset(block->slot)) < 0)
			report(dump, layer, block, "cannot be read");
		else if (!dump_block(dump, layer, block, data))
			return false;
	}
	return true;
}

/* The zero ranges before block END, of which *NEXT is the first. */
static bool dump_zeros(struct dump *dump, const struct cache_layer_info *info, const struct intervals *zeros,
		       unsigned *next, uint64_t end)
{
	for (; zeros && *next < intervals_length(zeros); ++*next) {
		struct interval interval = intervals_get(zeros, *next);

		if (interval.first >= end)
			break;
		if (!dump->block(dump->opaque, info, interval.first, interval.count, NULL))
			return false;
	}
	return true;
}

/* *POSITION is that of the layer's first block in the sorted array, or of the
 * first of a later layer; afterwards, of the next layer's. */
static bool dump_layer(struct dump *dump, const struct cache_layer_info *info, unsigned *position)
{
	const struct intervals *zeros = layers_by_id(dump->view.layers, info->id)->zeros;
	unsigned next_zero = 0, run;

	for (; *position < dump->blocks->len && live_block(dump, *position)->layer == info->id; *position += run) {
		run = run_length(dump, *position);
		if (!dump_zeros(dump, info, zeros, &next_zero, live_block(dump, *position)->block) ||
		    !dump_run(dump, info, *position, run))
			return false;
	}
	return dump_zeros(dump, info, zeros, &next_zero, UINT64_MAX);
}

static void skip_layer(const struct dump *dump, uint32_t id, unsigned *position)
{
	while (*position < dump->blocks->len && live_block(dump, *position)->layer == id)
		++*position;
}

static bool is_wanted_layer(const struct dump *dump, const struct cache_layer_info *info)
{
	return dump->only ? info->id == dump->only : !dump->name || strcmp(dump->name, info->name) == 0;
}

/* Every block's layer is among the layers, both by id. */
static bool dump_layers(struct dump *dump, GError **error)
{
	g_autoptr(GPtrArray) layers = cache_view_layers(&dump->view);
	unsigned position = 0, found = 0;

	for (unsigned i = 0; i < layers->len; i++) {
		const struct cache_layer_info *info = layers->pdata[i];

		if (!is_wanted_layer(dump, info)) {
			skip_layer(dump, info->id, &position);
			continue;
		}
		found++;
		if (info->loss)
			report_loss(dump, info);
		if (!dump_layer(dump, info, &position))
			return error_set(error, ECANCELED, "%s: the dump was not finished", dump->view.path);
	}
	if (dump->name && !found)
		return error_set(error, ENOENT, "%s: holds no layer \"%s\"; leafctl cache info lists them",
				 dump->view.path, dump->name);
	return true;
}

static bool run(struct dump *dump, const char *path, GError **error)
{
	g_autoptr(GArray) blocks = g_array_new(FALSE, FALSE, sizeof(struct live_block));
	bool done;

	if (!cache_view_open_recovered(&dump->view, path, error))
		return false;
	dump->blocks = blocks;
	dump->data = aligned_alloc(BLOCK_SIZE, CACHE_SEGMENT_BYTES);
	collect_blocks(dump);
	done = dump_layers(dump, error);
	free(dump->data);
	cache_view_close(&dump->view);
	return done;
}

bool cache_dump(const char *path, const char *layer,
		bool (*block)(void *opaque, const struct cache_layer_info *layer, uint64_t block, uint64_t blocks,
			      const void *data),
		void (*finding)(void *opaque, const char *sentence), void *opaque, GError **error)
{
	struct dump dump = {.name = layer, .block = block, .finding = finding, .opaque = opaque};

	return run(&dump, path, error);
}

bool cache_dump_dirty(const char *path, uint32_t id,
		      bool (*block)(void *opaque, const struct cache_layer_info *layer, uint64_t block, uint64_t blocks,
				    const void *data),
		      void (*finding)(void *opaque, const char *sentence), void *opaque, GError **error)
{
	struct dump dump = {.only = id, .block = block, .finding = finding, .opaque = opaque};

	return run(&dump, path, error);
}
