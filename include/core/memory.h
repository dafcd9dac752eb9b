/* Large memory, apart from the heap. */
#ifndef LEAFDISK_CORE_MEMORY_H
#define LEAFDISK_CORE_MEMORY_H

#include <stddef.h>

/* BYTES of zeros, aligned to a page; the kernel fills them as they are touched,
 * with huge pages where it can. NULL and errno when they cannot be had. Any thread. */
void *memory_map(size_t bytes);
/* MEMORY NULL is allowed. */
void memory_unmap(void *memory, size_t bytes);

#endif
