/* Record headers of many segments at once, as the reader of the log needs
 * them. */
#ifndef LEAFDISK_CACHE_FORMAT_HEADERS_H
#define LEAFDISK_CACHE_FORMAT_HEADERS_H

#include <glib.h>
#include <stdint.h>

#include "format/cache.h"

/* What stands where one segment's records should begin. Nothing is validated:
 * the last one may be anything. */
struct cache_segment_headers {
	GPtrArray *headers; /* struct cache_record_ondisk, owned */
	int error;	    /* -errno: behind these the segment could not be read */
};

/* Segments at once. */
#define CACHE_HEADERS_BATCH 128

/* Fills FOUND for COUNT segments (at most CACHE_HEADERS_BATCH) of the ring
 * from FIRST on. Blocks; its threads have ended when it returns. */
void cache_headers_read(int fd, uint64_t first, unsigned count, uint64_t ring_segments,
			struct cache_segment_headers *found);
/* The same of what stands at the beginning of each, however it goes on. */
void cache_headers_read_first(int fd, uint64_t first, unsigned count, uint64_t ring_segments,
			      struct cache_segment_headers *found);
void cache_headers_clear(struct cache_segment_headers *found, unsigned count);

#endif
