/* The two copies of the header: which one counts, and how they change.
 *
 * A change writes copy 0, flushes, writes copy 1, flushes. What a crash leaves
 * is sound because of two rules:
 *  1. Copy 0 is overwritten only while copy 1 is level with it, and durable.
 *     So copy 0 is at most one ahead, and at most one of them is damaged.
 *  2. What depends on a change is done after it is durable in both. So what the
 *     copy that lags names (pages, journal, slots) is untouched for as long as
 *     that copy may come to count.
 * While an image is in use they follow from the order of leaf_header_write()
 * and from FAILED. A process that was killed leaves copy 1 behind, or what it
 * wrote in the page cache only: leaf_header_level() makes the rules hold again,
 * and is called before the first write to an image that was loaded
 * (leaf_begin_writing(), leaf_redo_finish(), a repair, leaf_set_parent()). Loading
 * alone writes nothing. */
#include "header.h"

#include <errno.h>
#include <string.h>

#include "core/error.h"
#include "format.h"
#include "report.h"

struct copies {
	struct leaf_header_ondisk header[LEAF_HEADER_COPIES];
	const char *damage[LEAF_HEADER_COPIES]; /* NULL: valid */
	unsigned best;				/* counts, unless it is damaged: then both are */
};

static int copies_read(struct image_file *file, struct copies *copies)
{
	const struct leaf_header_ondisk *header = copies->header;
	int result = image_file_read(file, copies->header, sizeof(copies->header), 0);

	if (result < 0)
		return result;
	for (unsigned i = 0; i < LEAF_HEADER_COPIES; i++)
		copies->damage[i] = leaf_header_damage(&header[i], i);
	copies->best = copies->damage[0] ||
		       (!copies->damage[1] && le64_get(header[1].sequence) > le64_get(header[0].sequence));
	return 0;
}

/* Rule 1. */
static bool sequences_fit(const struct leaf_header_ondisk *header)
{
	uint64_t ahead = le64_get(header[0].sequence) - le64_get(header[1].sequence);

	return ahead <= 1;
}

bool leaf_header_read(struct image_file *file, struct leaf_header_ondisk *header, struct leaf_report *report)
{
	struct copies copies;
	int result = copies_read(file, &copies);

	if (result < 0)
		return error_set_errno(report->error, -result, "%s: its header cannot be read", report->path);
	if (copies.damage[copies.best])
		return error_set(report->error, EINVAL,
				 "%s: is not a leaf image: its first header copy %s, its second %s", report->path,
				 copies.damage[0], copies.damage[1]);
	*header = copies.header[copies.best];
	report->bad_copies = copies.damage[0] || copies.damage[1];
	if (!report->bad_copies && report->finding && !sequences_fit(copies.header))
		leaf_damage(report, "header copy %u is out of step with the other", 1 - copies.best);
	return true;
}

static int write_copy(struct image_file *file, struct leaf_header_ondisk *header, unsigned copy)
{
	int result;

	leaf_header_seal(header, copy);
	result = image_file_write(file, header, sizeof(*header), (uint64_t)copy * LEAF_HEADER_BYTES);
	return result < 0 ? result : image_file_sync(file);
}

/* The flush comes first: were the copy that counts only in the page cache, a
 * loss of power while the other is written could take both. */
int leaf_header_level(struct image_file *file)
{
	struct copies copies;
	struct leaf_header_ondisk level;
	unsigned other;
	int result = image_file_sync(file);

	if (result == 0)
		result = copies_read(file, &copies);
	if (result < 0)
		return result;
	if (copies.damage[copies.best])
		return -EIO;
	other = 1 - copies.best;
	level = copies.header[copies.best];
	leaf_header_seal(&level, other);
	if (memcmp(&level, &copies.header[other], sizeof(level)) == 0)
		return 0;
	return write_copy(file, &level, other);
}

int leaf_header_write(struct image_file *file, struct leaf_header_ondisk *header)
{
	int result = 0;

	header->sequence = le64_of(le64_get(header->sequence) + 1);
	for (unsigned copy = 0; copy < LEAF_HEADER_COPIES && result == 0; copy++)
		result = write_copy(file, header, copy);
	return result;
}

static const struct {
	enum leaf_parent_format ondisk;
	enum image_format format;
} parent_formats[] = {
	{LEAF_PARENT_NONE, IMAGE_FORMAT_NONE},
	{LEAF_PARENT_RAW, IMAGE_FORMAT_RAW},
	{LEAF_PARENT_LEAF, IMAGE_FORMAT_LEAF},
};

void leaf_parent_encode(struct leaf_header_ondisk *header, const struct image_parent *parent)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(parent_formats); i++)
		if (parent_formats[i].format == parent->format)
			header->parent_format = le32_of(parent_formats[i].ondisk);
	memset(header->parent_path, 0, sizeof(header->parent_path));
	header->parent_path_bytes = le32_of(parent->path ? (uint32_t)strlen(parent->path) : 0);
	if (parent->path)
		memcpy(header->parent_path, parent->path, strlen(parent->path));
	header->parent_size_bytes = le64_of(parent->size_bytes);
	header->parent_generation = le64_of(parent->generation);
	header->parent_stamp = le64_of(parent->stamp);
	memcpy(header->parent_uuid, parent->uuid, sizeof(header->parent_uuid));
}

void leaf_parent_decode(const struct leaf_header_ondisk *header, struct image_parent *parent)
{
	*parent = (struct image_parent){0};
	for (unsigned i = 0; i < G_N_ELEMENTS(parent_formats); i++)
		if (parent_formats[i].ondisk == le32_get(header->parent_format))
			parent->format = parent_formats[i].format;
	if (parent->format == IMAGE_FORMAT_NONE)
		return;
	parent->path = g_strndup(header->parent_path, sizeof(header->parent_path));
	parent->size_bytes = le64_get(header->parent_size_bytes);
	parent->generation = le64_get(header->parent_generation);
	parent->stamp = le64_get(header->parent_stamp);
	memcpy(parent->uuid, header->parent_uuid, sizeof(parent->uuid));
}
