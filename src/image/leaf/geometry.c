/* Where the table's pages and the slots of chunks are in the file. */
#include "geometry.h"

#include "core/bytes.h"
#include "format/leaf.h"

void leaf_geometry_init(struct leaf_geometry *g, uint32_t chunk_bytes, uint64_t data_offset)
{
	g->chunk_bytes = chunk_bytes;
	g->chunk_shift = (unsigned)__builtin_ctz(chunk_bytes);
	g->chunk_blocks = chunk_bytes >> BLOCK_SHIFT;
	g->words = (g->chunk_blocks + 63) / 64;
	g->entry_bytes = (uint32_t)sizeof(struct leaf_entry_ondisk) + 2 * g->words * (uint32_t)sizeof(le64);
	g->entries_per_page = (uint32_t)sizeof(((struct leaf_page_ondisk *)0)->body) / g->entry_bytes;
	g->pages_per_group = chunk_bytes / (2 * LEAF_PAGE_BYTES);
	g->slots_per_group = g->pages_per_group * g->entries_per_page;
	g->group_bytes = (g->slots_per_group + 1) * chunk_bytes;
	g->data_offset = data_offset;
}

uint64_t leaf_slot_offset(const struct leaf_geometry *g, uint64_t slot)
{
	return g->data_offset + slot / g->slots_per_group * g->group_bytes + g->chunk_bytes +
	       slot % g->slots_per_group * g->chunk_bytes;
}

uint64_t leaf_page_offset(const struct leaf_geometry *g, uint64_t page)
{
	return g->data_offset + page / g->pages_per_group * g->group_bytes +
	       page % g->pages_per_group * 2 * LEAF_PAGE_BYTES;
}

uint64_t leaf_slots_within(const struct leaf_geometry *g, uint64_t file_bytes)
{
	uint64_t bytes = file_bytes > g->data_offset ? file_bytes - g->data_offset : 0;
	uint64_t chunks_in_last = bytes % g->group_bytes >> g->chunk_shift;

	return bytes / g->group_bytes * g->slots_per_group + (chunks_in_last ? chunks_in_last - 1 : 0);
}

/* The list ends with a page that is not full. */
uint64_t leaf_zero_list_pages(uint64_t intervals)
{
	return intervals ? intervals / LEAF_INTERVALS_PER_PAGE + 1 : 0;
}

uint64_t leaf_zero_list_slots(const struct leaf_geometry *g, uint64_t intervals)
{
	uint64_t per_slot = g->chunk_bytes / LEAF_PAGE_BYTES;

	return (leaf_zero_list_pages(intervals) + per_slot - 1) / per_slot;
}
