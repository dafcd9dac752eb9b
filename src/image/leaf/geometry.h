/* Where the table's pages and the slots of chunks are in the file. */
#ifndef LEAFDISK_IMAGE_LEAF_GEOMETRY_H
#define LEAFDISK_IMAGE_LEAF_GEOMETRY_H

#include <stdint.h>

/* Everything that follows from the chunk size. */
struct leaf_geometry {
	uint64_t chunk_bytes;
	unsigned chunk_shift;
	uint32_t chunk_blocks;
	uint32_t words; /* of presence, and of zero bits */
	uint32_t entry_bytes;
	uint32_t entries_per_page;
	uint64_t pages_per_group;
	uint64_t slots_per_group;
	uint64_t group_bytes;
	uint64_t data_offset;
};

void leaf_geometry_init(struct leaf_geometry *geometry, uint32_t chunk_bytes, uint64_t data_offset);
uint64_t leaf_slot_offset(const struct leaf_geometry *geometry, uint64_t slot);
/* Of the page's first place; the second is LEAF_PAGE_BYTES behind. */
uint64_t leaf_page_offset(const struct leaf_geometry *geometry, uint64_t page);
/* Slots that lie wholly inside FILE_BYTES. */
uint64_t leaf_slots_within(const struct leaf_geometry *geometry, uint64_t file_bytes);

/* Pages, and slots, that a zero list of so many intervals fills. */
uint64_t leaf_zero_list_pages(uint64_t intervals);
uint64_t leaf_zero_list_slots(const struct leaf_geometry *geometry, uint64_t intervals);

#endif
