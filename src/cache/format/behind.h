/* What stands behind the place where the log's chain of records breaks: whether the log ends
 * there, and otherwise where it goes on. Blocks. */
#ifndef LEAFDISK_CACHE_FORMAT_BEHIND_H
#define LEAFDISK_CACHE_FORMAT_BEHIND_H

#include <stdbool.h>
#include <stdint.h>

#include "format/cache.h"

struct behind_break {
	int fd;
	uint64_t cache_id;
	uint64_t ring_segments;
	uint64_t tail_slot;
	uint64_t slot;	     /* where the missing record should be */
	uint64_t sequence;   /* of that */
	uint64_t generation; /* of the last record */
};

struct behind_found {
	uint64_t durable; /* the highest sequence that some record knows to have been durable */
	/* The record to go on with, g_free; NULL: there is none. */
	struct cache_record_ondisk *header;
	uint64_t slot;
};

/* Whether a record behind BROKEN, of this generation or a later one, says that the missing one
 * was durable, or KNOWN, a sequence of which that is known otherwise, covers it; or the missing
 * one stands elsewhere. False: the log ends there, and FOUND is empty. */
bool behind_look(const struct behind_break *broken, uint64_t known, struct behind_found *found);

#endif
