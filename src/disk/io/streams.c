/* Sequential streams: the one that was not continued for longest makes room. */
#include "disk/streams.h"

/* The stream that goes on at OFFSET, or the one to be forgotten for a new one. */
static unsigned stream_of(const struct streams *streams, uint64_t offset)
{
	unsigned oldest = 0;

	for (unsigned i = 0; i < STREAMS; i++) {
		if (streams->stream[i].bytes && streams->stream[i].end == offset)
			return i;
		if (streams->stream[i].used < streams->stream[oldest].used)
			oldest = i;
	}
	return oldest;
}

uint64_t streams_note(struct streams *streams, uint64_t offset, uint64_t length)
{
	unsigned i = stream_of(streams, offset);

	if (streams->stream[i].end != offset)
		streams->stream[i].bytes = 0;
	streams->stream[i].end = offset + length;
	streams->stream[i].bytes += length;
	streams->stream[i].used = ++streams->reads;
	return streams->stream[i].bytes;
}
