/* Stores in which an io_submit() stood, or stands: their calls go to background threads.
 * Reads and changes apart: a file system that is frozen goes on reading. Any thread. */
#ifndef LEAFDISK_AIO_STUCK_H
#define LEAFDISK_AIO_STUCK_H

#include <stdbool.h>
#include <stdint.h>

/* A submission for a file of DEVICE (struct aio_file) stands in the kernel, which CHANGES it or
 * reads alone: until stuck_end(), and for a while after, stuck_is() says so. */
void stuck_begin(uint64_t device, bool changes);
void stuck_end(uint64_t device, bool changes);
bool stuck_is(uint64_t device, bool changes);

#endif
