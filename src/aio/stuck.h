/* Stores in which an io_submit() stood, or stands: their calls go to background threads.
 * Any thread. */
#ifndef LEAFDISK_AIO_STUCK_H
#define LEAFDISK_AIO_STUCK_H

#include <stdbool.h>
#include <stdint.h>

/* A submission for a file of DEVICE (struct aio_file) stands in the kernel: until
 * stuck_end(), and for a while after, stuck_is() says so. */
void stuck_begin(uint64_t device);
void stuck_end(uint64_t device);
bool stuck_is(uint64_t device);

#endif
