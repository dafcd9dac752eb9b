/* Fuzz target: any bytes as a cache, looked at, checked, recovered, dumped.
 *
 * An input is packed as for fuzz_leaf. Superblock copies and record headers are
 * sealed, and a record is made to continue the one before it in the input
 * unless the top bit of its mount_sequence says otherwise, so that the fuzzer works on what
 * comes after checksum and chain. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "cache/format/format.h"
#include "cache/format/format_super.h"
#include "cache/offline/view.h"

#define FILE_BYTES_MAX (16u << 20)

struct patch {
	le32 page;
	le16 bytes;
	uint8_t data[];
} __attribute__((packed));

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *path;
static uint64_t previous; /* checksum of the record sealed last */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *directory = getenv("LEAFDISK_FUZZ_DIR");

	(void)argc;
	(void)argv;
	path = g_strdup_printf("%s/fuzz-%d.cache", directory ? directory : "/dev/shm", (int)getpid());
	return 0;
}

static void seal_super(struct cache_super_ondisk *super, uint64_t page)
{
	cache_super_seal(super, page != 0);
	previous = le64_get(super->tail_previous);
}

#define NOT_CHAINED (UINT64_C(1) << 63)

static void seal_record(struct cache_record_ondisk *record)
{
	uint64_t mount_sequence = le64_get(record->mount_sequence);
	bool version_1 = le32_get(record->magic) == CACHE_RECORD_MAGIC_1;
	struct cache_record_place place = {
		.position = le64_get(record->position),
		.cache_id = le64_get(record->cache_id),
		.generation = le64_get(record->generation),
		.sequence = le64_get(record->sequence),
		.previous = mount_sequence & NOT_CHAINED ? le64_get(record->previous) : previous,
		.mount_sequence = mount_sequence & ~NOT_CHAINED,
	};

	cache_record_seal(record, &place, le64_get(record->durable));
	if (version_1) {
		record->magic = le32_of(CACHE_RECORD_MAGIC_1);
		record->checksum = le64_of(0);
		record->checksum = le64_of(XXH64(record, sizeof(*record), 0));
	}
	previous = le64_get(record->checksum);
}

static bool write_page(int fd, const struct patch *patch)
{
	union {
		uint8_t bytes[BLOCK_SIZE];
		struct cache_super_ondisk super;
		struct cache_record_ondisk record;
	} page = {{0}};
	uint64_t number = le32_get(patch->page);

	memcpy(page.bytes, patch->data, MIN(le16_get(patch->bytes), BLOCK_SIZE));
	if (memcmp(page.super.magic, CACHE_MAGIC, sizeof(page.super.magic)) == 0)
		seal_super(&page.super, number);
	else if (le32_get(page.record.magic) == CACHE_RECORD_MAGIC ||
		 le32_get(page.record.magic) == CACHE_RECORD_MAGIC_1)
		seal_record(&page.record);
	return pwrite(fd, &page, sizeof(page), (off_t)(number << BLOCK_SHIFT)) == sizeof(page);
}

static bool write_file(const uint8_t *data, size_t size)
{
	uint64_t length = MIN(le64_get(*(const le64 *)(const void *)data), FILE_BYTES_MAX);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	bool ok = fd >= 0 && ftruncate(fd, (off_t)length) == 0;
	size_t at = sizeof(le64);

	previous = 0;
	while (ok && size - at >= sizeof(struct patch)) {
		const struct patch *patch = (const void *)(data + at);

		at += sizeof(*patch);
		if (le16_get(patch->bytes) > size - at || le32_get(patch->page) >= length >> BLOCK_SHIFT)
			break;
		at += le16_get(patch->bytes);
		ok = write_page(fd, patch);
	}
	if (fd >= 0)
		close(fd);
	return ok;
}

static void take_finding(void *opaque, const char *sentence)
{
	(void)opaque;
	if (sentence[0] == '\0')
		abort();
}

static bool take_block(void *opaque, const struct cache_layer_info *layer, uint64_t block, uint64_t blocks,
		       const void *data)
{
	(void)opaque;
	(void)layer;
	if (blocks == 0 || block >= CACHE_BLOCK_END || blocks > CACHE_BLOCK_END - block || (data && blocks != 1))
		abort();
	return true;
}

/* Its dirty slots, zero ranges and the slots that PINNED says are as many as it
 * counts, and none is before the first. */
static void check_epochs(void *opaque, struct cache_layer *layer)
{
	const struct cache_view *view = opaque;
	uint64_t ring = le64_get(view->super.ring_segments);
	uint64_t tail = le64_get(view->super.tail_segment) * CACHE_SEGMENT_BLOCKS;
	uint64_t dirty = 0, zeros = 0;

	for (uint32_t slot = 0; layer->epochs && slot < ring * CACHE_SEGMENT_BLOCKS; slot++) {
		struct index_entry entry;

		index_get(view->index, slot, &entry);
		if (entry.layer != layer->id || !(entry.flags & INDEX_PINNED))
			continue;
		dirty++;
		if (cache_slot_distance(tail, slot, ring) < cache_slot_distance(tail, layer->epochs->first, ring))
			abort();
	}
	for (unsigned i = 0; layer->epochs && i < epochs_length(layer->epochs); i++)
		zeros += epochs_get(layer->epochs, i)->blocks > 0;
	if (layer->epochs && (layer->orphan || dirty != layer->epochs->dirty || zeros != layer->epochs->zeros ||
			      epochs_count(layer->epochs) > (uint64_t)epochs_length(layer->epochs) + FILE_BYTES_MAX))
		abort();
}

/* Every LIVE slot is the one that its block is found in, inside the ring. */
static void recover(void)
{
	struct cache_view view;
	struct index_entry entry;

	if (!cache_view_open_recovered(&view, path, NULL))
		return;
	for (uint32_t slot = 0; slot < le64_get(view.super.ring_segments) * CACHE_SEGMENT_BLOCKS; slot++) {
		index_get(view.index, slot, &entry);
		if ((entry.flags & INDEX_LIVE) && index_find(view.index, entry.layer, entry.block) != slot)
			abort();
	}
	layers_foreach(view.layers, check_epochs, &view);
	cache_view_close(&view);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cache_check_result result;

	if (size < sizeof(le64) || !write_file(data, size))
		return 0;
	cache_info_free(cache_read_info(path, NULL));
	cache_check(path, take_finding, NULL, &result, NULL);
	cache_dump(path, NULL, take_block, take_finding, NULL, NULL);
	recover();
	unlink(path);
	return 0;
}
