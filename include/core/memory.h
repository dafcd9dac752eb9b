/* Large memory, apart from the heap. */
#ifndef LEAFDISK_CORE_MEMORY_H
#define LEAFDISK_CORE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* BYTES of zeros, aligned to a page; the kernel fills them as they are touched,
 * with huge pages where it can. NULL and errno when they cannot be had, or would
 * leave no room. Any thread. */
void *memory_map(size_t bytes);
/* Whether there is room for what is small and cannot fail, and for a few threads:
 * limits of the process (RLIMIT_AS, RLIMIT_DATA) can be near. Asked by whoever takes
 * much or goes on to take more; false: errno is ENOMEM. Any thread. */
bool memory_has_room(void);
/* The same beside BYTES that are to be taken in small pieces. */
bool memory_has_room_beside(size_t bytes);
/* MEMORY NULL is allowed. */
void memory_unmap(void *memory, size_t bytes);

#endif
