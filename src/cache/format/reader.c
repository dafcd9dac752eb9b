/* Reading the log: which records are valid, in their order.
 *
 * Headers are read for many segments at once and validated one by one. A valid
 * header waits until a later one says that its record was durable; then the
 * record counts. Those that still wait when the headers end, or that too many
 * others have followed, count if their data is right, up to the first whose
 * data is not: there the log ends.
 *
 * Where a header is not valid, what stands behind it (behind.c) and the superblock of a clean
 * end say whether the log ends there. It does not where the missing record is known to have
 * been durable: a hole waits in its place, and reading goes on with the first record behind.
 * Where it cannot be read, nobody knows: that is a hole too, which ends the log. */
#include "reader.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "aio/file.h"
#include "behind.h"
#include "headers.h"
#include "format.h"

/* A log has far fewer records behind the last durable one. */
#define WAITING_MAX 4096

struct waiting {
	struct cache_record_ondisk *header; /* NULL: a hole */
	uint64_t slot;
	struct cache_hole hole;
};

struct log_reader {
	int fd;
	uint64_t ring_segments;
	uint64_t tail_slot;
	uint64_t known_end; /* the superblock's end_sequence */
	const struct cache_log_reader *calls;
	struct cache_log_end *end;
	/* Of the next header. */
	uint64_t slot;
	struct cache_record_place place;
	uint64_t durable;
	GQueue waiting; /* struct waiting */
	uint8_t *data;	/* of one record */
	bool moved;	/* a record has been read: the tail's slot is behind the ring's end */
	bool finished;	/* the headers have ended */
};

static void waiting_free(void *opaque)
{
	struct waiting *waiting = opaque;

	g_free(waiting->header);
	g_free(waiting);
}

static void place_next(struct log_reader *reader, uint64_t slot)
{
	reader->slot = slot;
	reader->place.position = cache_slot_offset(slot);
}

/* ---- Data ---------------------------------------------------------------- */

static uint8_t *data_block(const struct log_reader *reader, unsigned index)
{
	return reader->data + ((size_t)index << BLOCK_SHIFT);
}

static int read_data(struct log_reader *reader, const struct waiting *waiting, unsigned first, unsigned blocks)
{
	return aio_fd_read(reader->fd, data_block(reader, first), (size_t)blocks << BLOCK_SHIFT,
			   cache_slot_offset(waiting->slot + 1 + first));
}

static void tell_damage(const struct log_reader *reader, const struct waiting *waiting, unsigned index)
{
	if (reader->calls->damage)
		reader->calls->damage(reader->calls->opaque, waiting->header, waiting->slot, index);
}

/* What cannot be read is not what was torn: only what can be is compared. */
static bool data_is_right(struct log_reader *reader, const struct waiting *waiting, bool *unreadable)
{
	unsigned blocks = le32_get(waiting->header->blocks);
	bool whole = read_data(reader, waiting, 0, blocks) == 0;

	for (unsigned i = 0; i < blocks; i++) {
		unreadable[i] = !whole && read_data(reader, waiting, i, 1) < 0;
		if (!unreadable[i] && !cache_record_check_data(waiting->header, i, data_block(reader, i)))
			return false;
	}
	return true;
}

/* What cannot be read is damaged too. */
static void report_damage(struct log_reader *reader, const struct waiting *waiting)
{
	unsigned blocks = le32_get(waiting->header->blocks);
	bool readable = read_data(reader, waiting, 0, blocks) == 0;

	for (unsigned i = 0; i < blocks; i++)
		if ((!readable && read_data(reader, waiting, i, 1) < 0) ||
		    !cache_record_check_data(waiting->header, i, data_block(reader, i)))
			tell_damage(reader, waiting, i);
}

/* ---- Records that count -------------------------------------------------- */

static void count_record(struct log_reader *reader, const struct waiting *waiting)
{
	const struct cache_record_ondisk *header = waiting->header;
	struct cache_log_end *end = reader->end;

	end->slot = cache_next_record_slot(waiting->slot, le32_get(header->blocks), reader->ring_segments);
	end->sequence = le64_get(header->sequence) + 1;
	end->previous = le64_get(header->checksum);
	end->generation = le64_get(header->generation);
	end->records++;
	end->blocks += le32_get(header->blocks);
	if (reader->calls->record)
		reader->calls->record(reader->calls->opaque, header, waiting->slot);
}

static void accept_durable(struct log_reader *reader, const struct waiting *waiting)
{
	count_record(reader, waiting);
	if (reader->calls->all_data)
		report_damage(reader, waiting);
}

/* False: the log ends before this record. */
static bool accept_unproven(struct log_reader *reader, const struct waiting *waiting)
{
	bool unreadable[CACHE_SEGMENT_BLOCKS];

	if (!data_is_right(reader, waiting, unreadable))
		return false;
	count_record(reader, waiting);
	for (unsigned i = 0; i < le32_get(waiting->header->blocks); i++)
		if (unreadable[i])
			tell_damage(reader, waiting, i);
	return true;
}

/* The log may end with it. */
static void count_hole(struct log_reader *reader, const struct cache_hole *hole)
{
	struct cache_log_end *end = reader->end;

	end->slot = hole->end_slot;
	end->sequence = hole->end;
	end->previous = 0;
	g_array_append_val(end->holes, *hole);
	if (reader->calls->hole)
		reader->calls->hole(reader->calls->opaque, hole);
}

/* Takes waiting records from the front: the durable ones, and the others until
 * no more than KEEP wait. */
static void take_waiting(struct log_reader *reader, unsigned keep)
{
	while (!g_queue_is_empty(&reader->waiting)) {
		struct waiting *waiting = g_queue_peek_head(&reader->waiting);

		if (!waiting->header) {
			count_hole(reader, &waiting->hole);
		} else if (le64_get(waiting->header->sequence) <= reader->durable) {
			accept_durable(reader, waiting);
		} else if (g_queue_get_length(&reader->waiting) <= keep) {
			return;
		} else if (!accept_unproven(reader, waiting)) {
			reader->finished = true;
			g_queue_clear_full(&reader->waiting, waiting_free);
			return;
		}
		waiting_free(g_queue_pop_head(&reader->waiting));
	}
}

/* ---- Holes --------------------------------------------------------------- */

/* Where the log goes on when there is nothing behind the hole: not where something cannot
 * be read or is in doubt, but in the next segment, unless that is the tail's. */
static uint64_t slot_behind(const struct log_reader *reader)
{
	uint64_t next = (reader->slot / CACHE_SEGMENT_BLOCKS + 1) % reader->ring_segments * CACHE_SEGMENT_BLOCKS;

	return next == reader->tail_slot ? reader->slot : next;
}

static void add_hole(struct log_reader *reader, const struct cache_hole *hole)
{
	struct waiting *waiting = g_new0(struct waiting, 1);

	waiting->hole = *hole;
	g_queue_push_tail(&reader->waiting, waiting);
	place_next(reader, hole->end_slot);
	reader->place.sequence = hole->end;
	reader->moved = true;
}

/* The log goes on with what was FOUND, or ends with the hole. */
static void pass_hole(struct log_reader *reader, const struct behind_found *found, int error, bool certain)
{
	const struct cache_record_ondisk *header = found->header;
	struct cache_hole hole = {
		.first = reader->place.sequence,
		.end = MAX(reader->known_end, reader->place.sequence + 1),
		.slot = reader->slot,
		.end_slot = slot_behind(reader),
		.error = error,
		.certain = certain,
	};

	reader->durable = MAX(reader->durable, found->durable);
	if (header) {
		hole.end = le64_get(header->sequence);
		hole.end_slot = found->slot;
		reader->place.previous = le64_get(header->previous);
		reader->place.generation = le64_get(header->generation);
	}
	reader->finished = !header;
	if (hole.first < hole.end)
		add_hole(reader, &hole);
	else
		place_next(reader, found->slot);
}

/* The record that should be in reader->slot is not there, or cannot be read for ERROR. */
static void break_off(struct log_reader *reader, int error)
{
	struct behind_break broken = {
		.fd = reader->fd,
		.cache_id = reader->place.cache_id,
		.ring_segments = reader->ring_segments,
		.tail_slot = reader->tail_slot,
		.slot = reader->slot,
		.sequence = reader->place.sequence,
		.generation = reader->place.generation,
	};
	struct behind_found found = {0};
	bool damaged = false;

	reader->finished = true;
	if (reader->known_end && reader->place.sequence == reader->known_end)
		return;
	damaged = behind_look(&broken, reader->known_end ? reader->known_end - 1 : 0, &found);
	if (damaged || error < 0)
		pass_hole(reader, &found, error, damaged);
	g_free(found.header);
}

/* ---- Headers ------------------------------------------------------------- */

/* Takes over *HEADER when it continues the log. */
static bool take_header(struct log_reader *reader, void **header)
{
	const struct cache_record_ondisk *record = *header;
	struct waiting *waiting;

	if (!cache_record_validate(record, &reader->place))
		return false;
	waiting = g_new0(struct waiting, 1);
	waiting->header = g_steal_pointer(header);
	waiting->slot = reader->slot;
	g_queue_push_tail(&reader->waiting, waiting);
	reader->durable = MAX(reader->durable, le64_get(record->durable));
	reader->place.generation = le64_get(record->generation);
	reader->place.sequence++;
	reader->place.previous = le64_get(record->checksum);
	place_next(reader, cache_next_record_slot(reader->slot, le32_get(record->blocks), reader->ring_segments));
	reader->moved = true;
	take_waiting(reader, WAITING_MAX);
	return true;
}

static bool has_come_round(const struct log_reader *reader)
{
	return reader->moved && reader->slot == reader->tail_slot;
}

/* The records of a segment from its beginning on, which is reader->slot. */
static void take_segment(struct log_reader *reader, struct cache_segment_headers *found)
{
	uint64_t segment = reader->slot / CACHE_SEGMENT_BLOCKS;
	guint i = 0;

	while (i < found->headers->len && !reader->finished && take_header(reader, &found->headers->pdata[i]))
		i++;
	if (reader->finished || has_come_round(reader))
		reader->finished = true;
	else if (reader->slot / CACHE_SEGMENT_BLOCKS == segment)
		break_off(reader, i < found->headers->len ? 0 : found->error);
}

/* From a record in the middle of a segment on to the end of that. */
static void read_rest(struct log_reader *reader)
{
	uint64_t segment = reader->slot / CACHE_SEGMENT_BLOCKS;

	while (!reader->finished && !has_come_round(reader) && reader->slot / CACHE_SEGMENT_BLOCKS == segment) {
		void *header = g_malloc(BLOCK_SIZE);
		int error = aio_fd_read(reader->fd, header, BLOCK_SIZE, cache_slot_offset(reader->slot));

		if (error < 0 || !take_header(reader, &header))
			break_off(reader, error);
		g_free(header);
	}
}

/* Segments from reader->slot on, as long as they follow each other. */
static void read_batch(struct log_reader *reader)
{
	struct cache_segment_headers found[CACHE_HEADERS_BATCH];
	uint64_t first = reader->slot / CACHE_SEGMENT_BLOCKS, ring = reader->ring_segments;
	uint64_t left = ring - cache_slot_distance(reader->tail_slot, reader->slot, ring) / CACHE_SEGMENT_BLOCKS;
	unsigned count = (unsigned)MIN(left, CACHE_HEADERS_BATCH);

	cache_headers_read(reader->fd, first, count, ring, found);
	for (unsigned i = 0; i < count && !reader->finished; i++)
		if (reader->slot == (first + i) % ring * CACHE_SEGMENT_BLOCKS)
			take_segment(reader, &found[i]);
	cache_headers_clear(found, count);
}

static void read_headers(struct log_reader *reader)
{
	while (!reader->finished && !has_come_round(reader))
		if (reader->slot % CACHE_SEGMENT_BLOCKS)
			read_rest(reader);
		else
			read_batch(reader);
}

static void reader_init(struct log_reader *reader, const struct cache_super_ondisk *super)
{
	le64 cache_id;

	memcpy(&cache_id, super->uuid, sizeof(cache_id));
	reader->place = (struct cache_record_place){
		.cache_id = le64_get(cache_id),
		.sequence = le64_get(super->tail_sequence),
		.previous = le64_get(super->tail_previous),
	};
	reader->ring_segments = le64_get(super->ring_segments);
	reader->tail_slot = le64_get(super->tail_segment) * CACHE_SEGMENT_BLOCKS;
	reader->known_end = le64_get(super->end_sequence);
	reader->durable = reader->place.sequence - 1;
	if (reader->known_end)
		reader->durable = MAX(reader->durable, reader->known_end - 1);
	place_next(reader, reader->tail_slot);
	*reader->end = (struct cache_log_end){
		.slot = reader->slot,
		.sequence = reader->place.sequence,
		.previous = reader->place.previous,
		.holes = g_array_new(FALSE, FALSE, sizeof(struct cache_hole)),
	};
}

void cache_log_read(int fd, const struct cache_super_ondisk *super, const struct cache_log_reader *calls,
		    struct cache_log_end *end)
{
	struct log_reader reader = {.fd = fd, .calls = calls, .end = end, .waiting = G_QUEUE_INIT};

	reader_init(&reader, super);
	reader.data = aligned_alloc(BLOCK_SIZE, CACHE_SEGMENT_BYTES);
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	read_headers(&reader);
	take_waiting(&reader, 0);
	posix_fadvise(fd, 0, 0, POSIX_FADV_NORMAL);
	end->durable = MIN(reader.durable, end->sequence - 1);
	g_queue_clear_full(&reader.waiting, waiting_free);
	free(reader.data);
}

void cache_log_end_clear(struct cache_log_end *end)
{
	g_clear_pointer(&end->holes, g_array_unref);
}

char *cache_hole_text(const struct cache_hole *hole)
{
	g_autofree char *which = hole->end - hole->first == 1
					 ? g_strdup_printf("record %" G_GUINT64_FORMAT, hole->first)
					 : g_strdup_printf("records %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT,
							   hole->first, hole->end - 1);
	const char *what = hole->end - hole->first == 1 ? "is" : "are";

	if (hole->error < 0)
		return g_strdup_printf("%s at byte %" G_GUINT64_FORMAT " cannot be read (%s)%s", which,
				       cache_slot_offset(hole->slot), g_strerror(-hole->error),
				       hole->certain ? "" : "; whether there is one is not known");
	return g_strdup_printf("%s at byte %" G_GUINT64_FORMAT " %s damaged", which, cache_slot_offset(hole->slot),
			       what);
}
