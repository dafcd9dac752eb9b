/* Memory whose amount follows an image, while it is opened. */
#include "memory.h"

#include "core/fault.h"
#include "core/memory.h"

/* Slots that are asked for at once. */
#define SLOTS_STEP 8192
/* Of a slot in the slot array, the lists and the hash, when all of them have just
 * become twice as long. */
#define SLOT_BYTES 128
/* Of a chunk in the tree, and what the allocator adds to both. */
#define CHUNK_EXTRA_BYTES 96

bool leaf_memory_is_there(const char *path, uint64_t bytes)
{
	return fault_hit("leaf.memory", path) == 0 && memory_has_room_beside(bytes);
}

void *leaf_memory_new(const char *path, uint64_t bytes)
{
	return leaf_memory_is_there(path, bytes) ? g_try_malloc0(bytes) : NULL;
}

bool leaf_memory_ask(struct leaf_report *report, uint64_t bytes)
{
	return leaf_memory_is_there(report->path, bytes) || leaf_report_no_memory(report);
}

void *leaf_memory_ask_new(struct leaf_report *report, uint64_t bytes)
{
	void *memory = leaf_memory_is_there(report->path, bytes) ? g_try_malloc(bytes) : NULL;

	if (!memory)
		leaf_report_no_memory(report);
	return memory;
}

bool leaf_memory_ask_slots(struct leaf *leaf, uint64_t slots, struct leaf_report *report)
{
	uint64_t asked = round_up(slots, SLOTS_STEP);
	uint64_t chunk_bytes = sizeof(struct chunk) + 2 * leaf->geometry.words * sizeof(uint64_t) + CHUNK_EXTRA_BYTES;

	if (slots <= leaf->slots_asked)
		return true;
	if (!leaf_memory_ask(report, (asked - leaf->slots_asked) * chunk_bytes + asked * SLOT_BYTES))
		return false;
	leaf->slots_asked = asked;
	return true;
}
