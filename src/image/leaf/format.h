/* The blocks of the leaf format: encode, and validate before use. */
#ifndef LEAFDISK_IMAGE_LEAF_FORMAT_H
#define LEAFDISK_IMAGE_LEAF_FORMAT_H

#include "leaf.h"

void leaf_header_seal(struct leaf_header_ondisk *header, unsigned copy);
/* NULL when the copy is valid, else why not (a literal). */
const char *leaf_header_damage(const struct leaf_header_ondisk *header, unsigned copy);
/* False and ERROR: a valid header that this version cannot or may not use. */
bool leaf_header_usable(const struct leaf_header_ondisk *header, const char *path, bool *read_only, GError **error);
void leaf_page_seal(struct leaf_page_ondisk *page, uint32_t magic, uint64_t position, uint64_t epoch, uint64_t first,
		    uint64_t image_id);
bool leaf_page_is_valid(const struct leaf_page_ondisk *page, uint32_t magic, uint64_t position, uint64_t max_epoch,
			uint64_t first, uint64_t image_id);
/* What PAGE with EPOCH adds to the header's table_digest; epoch 0: nothing. */
uint64_t leaf_page_digest(uint64_t page, uint64_t epoch);
void leaf_record_seal(void *record, uint32_t bytes, uint64_t position, uint64_t epoch, uint64_t sequence,
		      uint64_t image_id, uint32_t entries, uint64_t slot_count);
/* AVAILABLE: bytes at RECORD. Returns the record's length, 0: not valid. */
uint32_t leaf_record_validate(const void *record, uint64_t available, uint64_t position, uint64_t epoch,
			      uint64_t sequence, uint64_t image_id);
void leaf_entry_encode(const struct leaf *leaf, struct chunk *chunk, le64 *out); /* index, presence, zero */

#endif
