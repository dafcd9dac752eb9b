/* Reading the log from the file: its valid records in their order, and where some are
 * missing. Blocks. */
#ifndef LEAFDISK_CACHE_FORMAT_READER_H
#define LEAFDISK_CACHE_FORMAT_READER_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "format/cache.h"

/* Records that the log once had, or may have had. */
struct cache_hole {
	uint64_t first, end; /* sequences: END is there again, or is the next to be written */
	uint64_t slot;	     /* where FIRST should be */
	uint64_t end_slot;   /* of END */
	int error;	     /* 0: what is there is no record; -errno: it cannot be read */
	bool certain;	     /* FIRST was durable once; otherwise the log may end there */
};

/* Where the log ends. */
struct cache_log_end {
	uint64_t slot;	   /* of the next record */
	uint64_t sequence; /* of the next record */
	uint64_t previous; /* checksum of the last one, or the superblock's tail_previous; 0 behind a hole */
	uint64_t generation;
	uint64_t durable; /* sequence up to which records were known durable */
	uint64_t records;
	uint64_t blocks;
	GArray *holes; /* struct cache_hole, in log order */
	bool unknown;  /* cache_recover(): there may have been layers of which nothing is left */
};
void cache_log_end_clear(struct cache_log_end *end);

/* Reads record headers from the tail forward, several segments at once, and
 * calls RECORD for each valid one in log order. The data of the records past
 * the last one known durable is checked too: the first that is not what was written is the end
 * of the log.
 *
 * Where a record is missing that was durable, or that cannot be read, there is a hole: HOLE
 * is called, and the log goes on behind it.
 *
 * DAMAGE is called for each block that fails without ending the log: those that cannot be read
 * of the records past the last one known durable; ALL_DATA: and of all others. Any of the three may be NULL. */
struct cache_log_reader {
	void (*record)(void *opaque, const struct cache_record_ondisk *record, uint64_t slot);
	void (*damage)(void *opaque, const struct cache_record_ondisk *record, uint64_t slot, unsigned index);
	void (*hole)(void *opaque, const struct cache_hole *hole);
	void *opaque;
	bool all_data;
};
void cache_log_read(int fd, const struct cache_super_ondisk *super, const struct cache_log_reader *reader,
		    struct cache_log_end *end);

/* Who tells somebody about HOLE says this, of the log in PATH. g_free. */
char *cache_hole_text(const struct cache_hole *hole);

#endif
