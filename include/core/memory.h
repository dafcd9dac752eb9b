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

/* Memory for one at a time who cannot do without. Until it is used it costs address space
 * alone. Zeros: there is none. */
struct memory_spare {
	void *memory;
	size_t bytes;
	_Atomic bool taken;
};
/* False and errno, as memory_map(). */
bool memory_spare_init(struct memory_spare *spare, size_t bytes);
/* Nobody has it. */
void memory_spare_clear(struct memory_spare *spare);
/* As memory_map(); where there is none, the spare memory, if nobody has it and it is large
 * enough. Any thread. */
void *memory_spare_map(struct memory_spare *spare, size_t bytes);
/* What that returned; NULL is allowed. */
void memory_spare_unmap(struct memory_spare *spare, void *memory, size_t bytes);

#endif
