/* Large memory, apart from the heap.
 *
 * Huge pages: an index is looked up at random and a buffer is handed to the
 * kernel whole, so both save what the kernel does for each page. */
#include "core/memory.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>

/* GLib ends the program where it cannot have a few bytes. */
#define ROOM_BYTES ((size_t)64 << 20)

static void *map(size_t bytes)
{
	return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

bool memory_has_room_beside(size_t bytes)
{
	void *room = bytes <= SIZE_MAX - ROOM_BYTES ? map(ROOM_BYTES + bytes) : MAP_FAILED;

	if (room == MAP_FAILED)
		errno = ENOMEM;
	else
		munmap(room, ROOM_BYTES + bytes);
	return room != MAP_FAILED;
}

bool memory_has_room(void)
{
	return memory_has_room_beside(0);
}

void *memory_map(size_t bytes)
{
	void *memory = map(bytes);

	if (memory == MAP_FAILED)
		return NULL;
	if (!memory_has_room()) {
		munmap(memory, bytes);
		errno = ENOMEM;
		return NULL;
	}
	/* Refused where the kernel has none. */
	(void)madvise(memory, bytes, MADV_HUGEPAGE);
	return memory;
}

void memory_unmap(void *memory, size_t bytes)
{
	if (memory)
		munmap(memory, bytes);
}

bool memory_spare_init(struct memory_spare *spare, size_t bytes)
{
	spare->memory = memory_map(bytes);
	spare->bytes = spare->memory ? bytes : 0;
	return spare->memory;
}

void memory_spare_clear(struct memory_spare *spare)
{
	memory_unmap(spare->memory, spare->bytes);
	*spare = (struct memory_spare){0};
}

void *memory_spare_map(struct memory_spare *spare, size_t bytes)
{
	void *memory = memory_map(bytes);

	if (memory)
		return memory;
	return bytes <= spare->bytes && !atomic_exchange(&spare->taken, true) ? spare->memory : NULL;
}

void memory_spare_unmap(struct memory_spare *spare, void *memory, size_t bytes)
{
	if (!memory || memory != spare->memory) {
		memory_unmap(memory, bytes);
		return;
	}
	(void)madvise(memory, spare->bytes, MADV_DONTNEED);
	spare->taken = false;
}
