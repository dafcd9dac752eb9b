/* Sequential streams: how long the run is that a read continues.
 *
 * A few streams are remembered, so that several readers, or random reads in
 * between, do not hide a run. Not locked: the disk's mutex is held. */
#ifndef LEAFDISK_DISK_STREAMS_H
#define LEAFDISK_DISK_STREAMS_H

#include <stdint.h>

#define STREAMS 8

struct streams {
	struct {
		uint64_t end;	/* byte offset that the stream's next read has */
		uint64_t bytes; /* so far; 0: unused */
		uint64_t used;	/* when, in reads */
	} stream[STREAMS];
	uint64_t reads;
};

/* Notes a read of [OFFSET, + LENGTH) and returns the bytes of its run. */
uint64_t streams_note(struct streams *streams, uint64_t offset, uint64_t length);

#endif
