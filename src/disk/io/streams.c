/* Sequential streams. */
#include "disk/streams.h"

uint64_t streams_note(struct streams *streams, uint64_t offset, uint64_t length)
{
	unsigned i = 0;

	while (i < STREAMS && !(streams->stream[i].bytes && streams->stream[i].end == offset))
		i++;
	if (i == STREAMS) {
		i = streams->oldest;
		streams->oldest = (i + 1) % STREAMS;
		streams->stream[i].bytes = 0;
	}
	streams->stream[i].end = offset + length;
	streams->stream[i].bytes += length;
	return streams->stream[i].bytes;
}
