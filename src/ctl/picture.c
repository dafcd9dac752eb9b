/* A disk as a person sees it at a glance.
 *
 * The field has a sign for each equal part of the disk: of the layer that has the most data there. */
#include "picture.h"

#include <inttypes.h>
#include <stdio.h>

#include "core/bytes.h"
#include "core/config.h"
#include "table.h"

#define LINE_CELLS 64
#define CELLS_MAX (16 * LINE_CELLS)
/* Layers that have a sign of their own; deeper ones share one. */
#define SIGNS "0123456789+"
#define SIGN_COUNT (sizeof(SIGNS) - 1)
#define ZERO_SIGN '-'
#define NOTHING_SIGN '.'

struct layer {
	char *path;
	uint64_t data_bytes;
	uint64_t zero_bytes;
	uint64_t extents;
};

struct cell {
	uint64_t data_bytes[SIGN_COUNT];
	uint64_t zero_bytes;
};

struct picture {
	uint64_t size_bytes;
	uint64_t cell_bytes;
	unsigned cell_count;
	struct cell *cells;
	GPtrArray *layers; /* struct layer, NULL where none was seen; by depth */
};

static void layer_free(void *data)
{
	struct layer *layer = data;

	if (layer)
		g_free(layer->path);
	g_free(layer);
}

struct picture *picture_new(uint64_t size_bytes)
{
	struct picture *picture = g_new0(struct picture, 1);

	picture->size_bytes = size_bytes;
	picture->cell_bytes = round_up(MAX(size_bytes / CELLS_MAX + (size_bytes % CELLS_MAX != 0), 1), BLOCK_SIZE);
	picture->cell_count = (unsigned)((size_bytes + picture->cell_bytes - 1) / picture->cell_bytes);
	picture->cells = g_new0(struct cell, picture->cell_count);
	picture->layers = g_ptr_array_new_with_free_func(layer_free);
	return picture;
}

void picture_free(struct picture *picture)
{
	if (!picture)
		return;
	g_free(picture->cells);
	g_ptr_array_unref(picture->layers);
	g_free(picture);
}

static struct layer *layer_at(struct picture *picture, guint depth, const char *path)
{
	if (picture->layers->len <= depth)
		g_ptr_array_set_size(picture->layers, (gint)depth + 1);
	if (!picture->layers->pdata[depth]) {
		struct layer *layer = g_new0(struct layer, 1);

		layer->path = g_strdup(path);
		picture->layers->pdata[depth] = layer;
	}
	return picture->layers->pdata[depth];
}

static void paint(struct picture *picture, const struct disk_extent *extent)
{
	uint64_t offset = extent->offset, end = MIN(extent->offset + extent->length, picture->size_bytes), part;
	unsigned sign = MIN((unsigned)extent->layer, (unsigned)SIGN_COUNT - 1);

	for (; offset < end; offset += part) {
		struct cell *cell = &picture->cells[offset / picture->cell_bytes];

		part = MIN(end - offset, picture->cell_bytes - offset % picture->cell_bytes);
		if (extent->zero)
			cell->zero_bytes += part;
		else
			cell->data_bytes[sign] += part;
	}
}

void picture_add(struct picture *picture, const struct disk_extent *extent, const char *layer_path)
{
	struct layer *layer;

	if (extent->layer < 0)
		return;
	layer = layer_at(picture, (guint)extent->layer, layer_path);
	*(extent->zero ? &layer->zero_bytes : &layer->data_bytes) += extent->length;
	layer->extents++;
	paint(picture, extent);
}

static void print_layers(const struct picture *picture)
{
	static const char *const columns[] = {">layer", ">data", ">zero", ">extents", "<path", NULL};
	g_autoptr(table) table = table_new(columns);

	for (guint i = 0; i < picture->layers->len; i++) {
		const struct layer *layer = picture->layers->pdata[i];
		g_autofree char *depth = g_strdup_printf("%u", i);
		g_autofree char *data = layer ? config_format_size(layer->data_bytes) : NULL;
		g_autofree char *zero = layer ? config_format_size(layer->zero_bytes) : NULL;
		g_autofree char *extents = layer ? g_strdup_printf("%" PRIu64, layer->extents) : NULL;
		const char *cells[] = {depth, data, zero, extents, layer ? layer->path : NULL};

		table_add(table, cells);
	}
	table_print(table);
}

static char sign_of(const struct cell *cell)
{
	unsigned most = 0;

	for (unsigned i = 1; i < SIGN_COUNT; i++)
		if (cell->data_bytes[i] > cell->data_bytes[most])
			most = i;
	if (cell->data_bytes[most])
		return SIGNS[most];
	return cell->zero_bytes ? ZERO_SIGN : NOTHING_SIGN;
}

void picture_print(const struct picture *picture)
{
	g_autofree char *each = config_format_size(picture->cell_bytes);

	print_layers(picture);
	printf("\neach sign is %s: the layer that has most data there, %c zeros, %c nothing\n", each, ZERO_SIGN,
	       NOTHING_SIGN);
	for (unsigned i = 0; i < picture->cell_count; i++) {
		g_autofree char *at = i % LINE_CELLS ? NULL : config_format_size((uint64_t)i * picture->cell_bytes);

		if (at)
			printf("%s%10s  ", i ? "\n" : "", at);
		putchar(sign_of(&picture->cells[i]));
	}
	putchar('\n');
}
