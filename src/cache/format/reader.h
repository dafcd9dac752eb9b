/* Reading the log from the file: its valid records in their order. Blocks. */
#ifndef LEAFDISK_CACHE_FORMAT_READER_H
#define LEAFDISK_CACHE_FORMAT_READER_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "format/cache.h"

/* Where the log ends. */
struct cache_log_end {
	uint64_t slot;	   /* of the next record */
	uint64_t sequence; /* of the next record */
	uint64_t previous; /* checksum of the last one, or the superblock's tail_previous */
	uint64_t generation;
	uint64_t durable; /* sequence up to which records were known durable */
	uint64_t records;
	uint64_t blocks;
};
/* Reads record headers from the tail forward, several segments at once, and
 * calls RECORD for each valid one in log order. The data of the records past
 * the last one known durable is checked too: the first that fails is the end
 * of the log. ALL_DATA checks the data of every record and calls DAMAGE for
 * each block that fails without ending the log (DAMAGE may be NULL otherwise).
 * False and ERROR only when the file cannot be read. */
struct cache_log_reader {
	void (*record)(void *opaque, const struct cache_record_ondisk *record, uint64_t slot);
	void (*damage)(void *opaque, const struct cache_record_ondisk *record, uint64_t slot, unsigned index);
	void *opaque;
	bool all_data;
};
bool cache_log_read(int fd, const char *path, const struct cache_super_ondisk *super,
		    const struct cache_log_reader *reader, struct cache_log_end *end, GError **error);

#endif
