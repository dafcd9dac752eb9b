/* Checking a leaf, and mending what can be mended.
 *
 * Loading finds most damage: checksums, entries past the end, chunks in two
 * slots, a table longer than the file. What is left is looked at here: bits of
 * blocks past the end, slots past the end of the file, and space that no chunk
 * uses. Copies that an interrupted batch left owed are no damage; a repair makes
 * them.
 *
 * A repair keeps what is sound, and writes it back as a checkpoint, which
 * rewrites both header copies and every page. */
#include "check.h"

#include <unistd.h>

#include "bits.h"
#include "checkpoint.h"
#include "core/error.h"
#include "geometry.h"
#include "header.h"
#include "load.h"
#include "redo.h"
#include "report.h"
#include "slots.h"
#include "table.h"

static void check_end(struct leaf *leaf, struct leaf_report *report)
{
	uint64_t blocks = blocks_of(leaf->image.size_bytes);
	uint32_t per_chunk = leaf->geometry.chunk_blocks;
	struct chunk *last = leaf_chunk_find(leaf, blocks / per_chunk);
	uint32_t used = (uint32_t)(blocks % per_chunk);

	if (!last || !used || !bits_any_set(chunk_present(leaf, last), used, per_chunk - used))
		return;
	leaf_damage(report, "chunk %" G_GUINT64_FORMAT " has blocks past the end of the disk", last->index);
	bits_clear(chunk_present(leaf, last), used, per_chunk - used);
	bits_clear(chunk_zero(leaf, last), used, per_chunk - used);
}

static void repair_redo(struct leaf *leaf, struct leaf_report *report)
{
	int result = leaf_redo_copy(leaf);

	if (result < 0)
		error_set_errno(report->error, -result, "%s: the interrupted batch cannot be finished", report->path);
	g_array_set_size(leaf->redo, 0);
}

/* Costs the space that the file has, not its length. */
static uint64_t count_leaked(const struct leaf *leaf)
{
	uint64_t room = leaf_slots_within(&leaf->geometry, leaf->file_bytes), leaked = 0;

	for (uint64_t slot = 0; slot < room; slot++) {
		uint64_t start = leaf_slot_offset(&leaf->geometry, slot);
		off_t data = lseek(leaf->file.aio.buffered_fd, (off_t)start, SEEK_DATA);

		if (data < 0)
			break;
		if ((uint64_t)data < start + leaf->geometry.chunk_bytes)
			leaked += !leaf_slot_chunk(leaf, slot);
		else
			slot = MAX(slot, leaf_slots_within(&leaf->geometry, (uint64_t)data) - 1);
	}
	return leaked;
}

static void count_chunks(struct leaf *leaf, struct image_check_result *result)
{
	result->chunks = g_hash_table_size(leaf->chunks);
	if (!leaf->file.block_device)
		result->leaked_chunks = count_leaked(leaf);
}

static bool write_back(struct leaf *leaf, GError **error)
{
	int result = leaf_header_level(&leaf->file);

	if (result == 0)
		result = leaf_checkpoint_everything(leaf);
	return result == 0 || error_set_errno(error, -result, "%s: the repair cannot be written", leaf->image.path);
}

bool leaf_check(const char *path, bool repair, image_finding finding, void *opaque, struct image_check_result *result,
		GError **error)
{
	g_autoptr(GError) inner = NULL;
	struct leaf_report report = {
		.finding = finding, .opaque = opaque, .repairing = repair, .error = &inner, .path = path};
	struct leaf *leaf =
		leaf_load(IMAGE_BY_PATH, path, repair ? IMAGE_WRITABLE : IMAGE_NO_LOCK | IMAGE_NO_DIRECT, &report);
	bool good = leaf;

	if (leaf) {
		result->journal_records = leaf->journal_sequence - le64_get(leaf->header.journal_sequence);
		check_end(leaf, &report);
		result->owed_extents = leaf->redo->len;
		if (repair)
			repair_redo(leaf, &report);
		count_chunks(leaf, result);
		good = !inner;
		result->bad_header_copies = report.bad_copies;
		if (good && repair && (report.damages || report.bad_copies || result->owed_extents))
			good = write_back(leaf, &inner);
		if (good && repair)
			result->repaired = report.damages;
	}
	if (!leaf && report.damages && !repair && !report.no_memory) {
		finding(opaque, false, inner->message);
		good = true;
	}
	result->damages = report.damages;
	leaf_free(leaf);
	if (!good)
		g_propagate_error(error, g_steal_pointer(&inner));
	return good;
}
