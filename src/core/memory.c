/* Large memory, apart from the heap.
 *
 * Huge pages: an index is looked up at random and a buffer is handed to the
 * kernel whole, so both save what the kernel does for each page. */
#include "core/memory.h"

#include <sys/mman.h>

void *memory_map(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	/* Refused where the kernel has none. */
	(void)madvise(memory, bytes, MADV_HUGEPAGE);
	return memory;
}

void memory_unmap(void *memory, size_t bytes)
{
	if (memory)
		munmap(memory, bytes);
}
