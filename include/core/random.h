/* Numbers that nobody else has. Any thread. */
#ifndef LEAFDISK_CORE_RANDOM_H
#define LEAFDISK_CORE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

#define RANDOM_UUID_BYTES 16

/* SIZE is 256 at most: the kernel gives that at once. */
void random_fill(void *data, size_t size);
/* RFC 9562, version 4. */
void random_make_uuid(uint8_t uuid[RANDOM_UUID_BYTES]);

#endif
