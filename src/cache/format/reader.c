/* Reading the log: which records are valid, in their order.
 *
 * Headers are read for many segments at once and validated one by one. A valid
 * header waits until a later one says that its record was durable; then the
 * record counts. Those that still wait when the headers end, or that too many
 * others have followed, count if their data is right, up to the first whose
 * data is not: there the log ends. */
#include "reader.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "aio/file.h"
#include "core/error.h"
#include "headers.h"
#include "format.h"
#include "super.h"

/* A log has far fewer records behind the last durable one. */
#define WAITING_MAX 4096

struct waiting {
	struct cache_record_ondisk *header;
	uint64_t slot;
};

struct log_reader {
	int fd;
	uint64_t ring_segments;
	const struct cache_log_reader *calls;
	struct cache_log_end *end;
	/* Of the next header. */
	uint64_t slot;
	struct cache_record_place place;
	uint64_t durable;
	GQueue waiting; /* struct waiting */
	uint8_t *data;	/* of one record */
	bool finished;	/* the headers have ended */
	int error;
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

static bool data_is_right(struct log_reader *reader, const struct waiting *waiting)
{
	for (unsigned i = 0; i < le32_get(waiting->header->blocks); i++)
		if (!cache_record_check_data(waiting->header, i, data_block(reader, i)))
			return false;
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
			reader->calls->damage(reader->calls->opaque, waiting->header, waiting->slot, i);
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
	reader->error = read_data(reader, waiting, 0, le32_get(waiting->header->blocks));
	if (reader->error < 0 || !data_is_right(reader, waiting))
		return false;
	count_record(reader, waiting);
	return true;
}

/* Takes waiting records from the front: the durable ones, and the others until
 * no more than KEEP wait. */
static void take_waiting(struct log_reader *reader, unsigned keep)
{
	while (!g_queue_is_empty(&reader->waiting)) {
		struct waiting *waiting = g_queue_peek_head(&reader->waiting);

		if (le64_get(waiting->header->sequence) <= reader->durable) {
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

/* ---- Headers ------------------------------------------------------------- */

/* Takes over *HEADER when it continues the log. */
static bool take_header(struct log_reader *reader, void **header)
{
	const struct cache_record_ondisk *record = *header;
	struct waiting *waiting;

	if (!cache_record_validate(record, &reader->place))
		return false;
	waiting = g_new(struct waiting, 1);
	*waiting = (struct waiting){g_steal_pointer(header), reader->slot};
	g_queue_push_tail(&reader->waiting, waiting);
	reader->durable = MAX(reader->durable, le64_get(record->durable));
	reader->place.generation = le64_get(record->generation);
	reader->place.sequence++;
	reader->place.previous = le64_get(record->checksum);
	place_next(reader, cache_next_record_slot(reader->slot, le32_get(record->blocks), reader->ring_segments));
	take_waiting(reader, WAITING_MAX);
	return !reader->finished;
}

static void take_segment(struct log_reader *reader, struct cache_segment_headers *found)
{
	for (unsigned i = 0; i < found->headers->len && !reader->finished; i++)
		reader->finished = !take_header(reader, &found->headers->pdata[i]);
	if (!reader->finished && found->error < 0) {
		reader->error = found->error;
		reader->finished = true;
	}
}

static void read_headers(struct log_reader *reader, uint64_t tail_segment)
{
	struct cache_segment_headers found[CACHE_HEADERS_BATCH];

	for (uint64_t done = 0; done < reader->ring_segments && !reader->finished;) {
		unsigned count = (unsigned)MIN(reader->ring_segments - done, CACHE_HEADERS_BATCH);

		cache_headers_read(reader->fd, tail_segment + done, count, reader->ring_segments, found);
		for (unsigned i = 0; i < count && !reader->finished; i++)
			take_segment(reader, &found[i]);
		cache_headers_clear(found, count);
		done += count;
	}
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
	reader->durable = reader->place.sequence - 1;
	place_next(reader, le64_get(super->tail_segment) * CACHE_SEGMENT_BLOCKS);
	*reader->end = (struct cache_log_end){
		.slot = reader->slot,
		.sequence = reader->place.sequence,
		.previous = reader->place.previous,
	};
}

bool cache_log_read(int fd, const char *path, const struct cache_super_ondisk *super,
		    const struct cache_log_reader *calls, struct cache_log_end *end, GError **error)
{
	struct log_reader reader = {.fd = fd, .calls = calls, .end = end, .waiting = G_QUEUE_INIT};

	reader_init(&reader, super);
	reader.data = aligned_alloc(BLOCK_SIZE, CACHE_SEGMENT_BYTES);
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	read_headers(&reader, le64_get(super->tail_segment));
	if (reader.error == 0)
		take_waiting(&reader, 0);
	posix_fadvise(fd, 0, 0, POSIX_FADV_NORMAL);
	end->durable = MIN(reader.durable, end->sequence - 1);
	g_queue_clear_full(&reader.waiting, waiting_free);
	free(reader.data);
	return reader.error == 0 || cache_refuse_unreadable(error, path, reader.error);
}
