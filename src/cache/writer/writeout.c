/* What the writer's thread does with the file: write, flush, try again.
 *
 *     GOOD    records are written as they are sealed, WRITES_MAX at once, and
 *             flushed when somebody waits for it, when half of the buffers or
 *             records are waiting for it, or SYNC_NS after the first of them
 *     FAILED  after an error, or without an answer for ANSWER_NS: the cache is
 *             suspended; after RETRY_FIRST_NS, doubled each time, and not
 *             before the last answer has come:
 *     TRYING  every record that is not durable is written again, in order, and
 *             flushed; then GOOD, or FAILED again
 *
 * A failed flush says nothing about which writes are lost, and the next one
 * may succeed without them. So nothing written before it counts: TRYING begins
 * with the first record that no good flush has covered (invariant 2). */
#include "writeout.h"

#include <errno.h>

#include "core/counters.h"
#include "cache/log/log.h"
#include "cache/log/wake.h"
#include "cache/watch.h"
#include "state.h"

#define SYNC_NS (5 * NS_PER_S)
#define RETRY_FIRST_NS (2 * NS_PER_S)
#define RETRY_LONGEST_NS (30 * NS_PER_S)

static struct log_record *record_of(struct list *node)
{
	return container_of(node, struct log_record, link);
}

bool writeout_is_under_way(const struct writer *writer)
{
	return writer->writes > 0 || writer->syncing;
}

/* ---- Failure ------------------------------------------------------------- */

static void fail_locked(struct cache *cache, int error, const char *what)
{
	struct writer *writer = &cache->writer;

	cache_assert_locked(cache);
	if (writer->state == WRITER_FAILED)
		return;
	writer->retry_ns = writer->state == WRITER_GOOD ? RETRY_FIRST_NS : MIN(writer->retry_ns * 2, RETRY_LONGEST_NS);
	writer->retry_at_ns = loop_now_ns() + writer->retry_ns;
	writer->state = WRITER_FAILED;
	cache_suspend_locked(cache, error, what);
}

void writeout_retry_locked(struct cache *cache, uint64_t now)
{
	struct writer *writer = &cache->writer;

	cache_assert_locked(cache);
	if (writer->state != WRITER_FAILED || writeout_is_under_way(writer) || now < writer->retry_at_ns)
		return;
	list_foreach(node, &cache->log.sealed) record_of(node)->state = RECORD_UNWRITTEN;
	writer->state = WRITER_TRYING;
}

void writeout_watch_locked(struct cache *cache, uint64_t now)
{
	struct writer *writer = &cache->writer;

	cache_assert_locked(cache);
	/* Another thread's durable write may have begun after NOW. */
	if (!writeout_is_under_way(writer) || now < writer->progress_ns + ANSWER_NS)
		return;
	cache_silence_locked(cache);
	fail_locked(cache, -ETIMEDOUT, "does not answer");
}

/* ---- Flushes ------------------------------------------------------------- */

/* The last record up to which all are written. */
uint64_t writeout_written_locked(const struct cache *cache)
{
	uint64_t sequence = cache->log.durable;

	cache_assert_locked(cache);
	list_foreach(node, &cache->log.sealed)
	{
		if (record_of(node)->state != RECORD_WRITTEN)
			break;
		sequence = record_of(node)->sequence;
	}
	return sequence;
}

/* Of what comes next; flushes have been promised more than others. */
static uint64_t next_sync_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	return loop_now_ns() + (list_is_empty(&cache->flushes) ? SYNC_NS : MIN(SYNC_NS, cache->barrier_deadline_ns));
}

static void durable_locked(struct cache *cache, uint64_t sequence)
{
	struct writer *writer = &cache->writer;
	struct list *node;

	cache_assert_locked(cache);
	while ((node = list_first(&cache->log.sealed)) && record_of(node)->sequence <= sequence)
		log_release_record_locked(cache, record_of(node));
	cache->log.durable = MAX(cache->log.durable, sequence);
	condition_broadcast(&cache->changed);
	wake_flushes_locked(cache);
	writer->sync_at_ns = list_is_empty(&cache->log.sealed) ? 0 : next_sync_locked(cache);
	wake_waiters_locked(cache);
}

static void sync_done(struct aio_request *request, int result)
{
	struct cache *cache = container_of(request, struct cache, writer.sync);
	struct writer *writer = &cache->writer;

	LOCK_GUARD(&cache->lock);
	writer->syncing = false;
	writer->progress_ns = loop_now_ns();
	if (result < 0) {
		fail_locked(cache, result, "cannot be flushed");
	} else if (writer->state != WRITER_FAILED) {
		durable_locked(cache, writer->sync_covers);
		if (writer->state == WRITER_TRYING) {
			writer->state = WRITER_GOOD;
			cache_resume_locked(cache);
		}
	}
	wake_writer_locked(cache);
}

static bool sync_is_due_locked(const struct cache *cache, uint64_t written, uint64_t now)
{
	const struct writer *writer = &cache->writer;
	const struct log *log = &cache->log;

	cache_assert_locked(cache);
	if (writer->state == WRITER_TRYING)
		return writer->writes == 0;
	if (written == log->durable)
		return false;
	if (writer->sync_wanted > log->durable && written >= writer->sync_wanted)
		return true;
	return now >= writer->sync_at_ns || log->free_buffer_count < (log->buffer_count + 1) / 2 ||
	       log->free_records < CACHE_RECORDS / 2;
}

void writeout_sync_locked(struct cache *cache, uint64_t now)
{
	struct writer *writer = &cache->writer;
	uint64_t written = writeout_written_locked(cache);

	cache_assert_locked(cache);
	if (writer->syncing || writer->state == WRITER_FAILED || !sync_is_due_locked(cache, written, now))
		return;
	if (!writeout_is_under_way(writer))
		writer->progress_ns = now;
	writer->syncing = true;
	writer->sync_covers = written;
	writer->sync = (struct aio_request){.op = AIO_DATASYNC, .file = &cache->storage.aio, .done = sync_done};
	counter_add(cache_syncs, 1);
	aio_submit(writer->queue, &writer->sync);
}

/* ---- Writes -------------------------------------------------------------- */

static void write_done(struct aio_request *request, int result)
{
	struct log_record *record = container_of(request, struct log_record, aio);
	struct cache *cache = record->cache;

	LOCK_GUARD(&cache->lock);
	cache->writer.writes--;
	cache->writer.progress_ns = loop_now_ns();
	record->state = result < 0 ? RECORD_UNWRITTEN : RECORD_WRITTEN;
	if (result < 0)
		fail_locked(cache, result, "cannot be written");
	wake_writer_locked(cache);
}

/* RECORD is sealed; its bytes stay as they are until it is durable. */
static void write_record(struct aio_queue *queue, struct log_record *record, enum aio_op op,
			 void (*done)(struct aio_request *request, int result))
{
	record->state = RECORD_WRITING;
	record->aio = (struct aio_request){
		.op = op,
		.file = &record->cache->storage.aio,
		.buffer = slot_data(record->buffer->data, record->slot),
		.offset = cache_slot_offset(record->slot),
		.length = (uint32_t)((1 + record->blocks) << BLOCK_SHIFT),
		.done = done,
	};
	counter_add(cache_records, 1);
	counter_add(cache_record_bytes, record->aio.length);
	aio_submit(queue, &record->aio);
}

void writeout_write_locked(struct cache *cache, uint64_t now)
{
	struct writer *writer = &cache->writer;

	cache_assert_locked(cache);
	if (writer->state == WRITER_FAILED)
		return;
	list_foreach(node, &cache->log.sealed)
	{
		if (writer->writes >= WRITES_MAX)
			return;
		if (record_of(node)->state != RECORD_UNWRITTEN)
			continue;
		if (!writeout_is_under_way(writer))
			writer->progress_ns = now;
		if (writer->sync_at_ns == 0)
			writer->sync_at_ns = now + SYNC_NS;
		writer->writes++;
		write_record(writer->queue, record_of(node), AIO_WRITE, write_done);
	}
}

/* ---- One record for a flush ------------------------------------------------ */

bool writeout_is_due_locked(const struct cache *cache)
{
	const struct writer *writer = &cache->writer;

	cache_assert_locked(cache);
	if (writer->state != WRITER_GOOD || writer->sync_wanted > cache->log.durable)
		return true;
	list_foreach(node, &cache->log.sealed) if (record_of(node)->state != RECORD_WRITING) return true;
	return false;
}

/* On the loop of who flushes. */
static void durable_write_done(struct aio_request *request, int result)
{
	struct log_record *record = container_of(request, struct log_record, aio);
	struct cache *cache = record->cache;
	struct writer *writer = &cache->writer;

	LOCK_GUARD(&cache->lock);
	writer->writes--;
	writer->progress_ns = loop_now_ns();
	record->state = result < 0 ? RECORD_UNWRITTEN : RECORD_WRITTEN;
	if (result < 0)
		fail_locked(cache, result, "cannot be written");
	else if (writer->state == WRITER_GOOD && record_of(list_first(&cache->log.sealed)) == record)
		durable_locked(cache, record->sequence);
	if (writeout_is_due_locked(cache))
		wake_writer_locked(cache);
}

bool writeout_write_durable_locked(struct cache *cache, struct aio_queue *queue)
{
	struct writer *writer = &cache->writer;
	struct list *first = list_first(&cache->log.sealed);

	cache_assert_locked(cache);
	if (writer->state != WRITER_GOOD || writeout_is_under_way(writer) || !first ||
	    first->next != &cache->log.sealed || !list_is_empty(&cache->log.building) ||
	    record_of(first)->state != RECORD_UNWRITTEN)
		return false;
	writer->progress_ns = loop_now_ns();
	writer->writes++;
	counter_add(cache_syncs, 1);
	write_record(queue, record_of(first), AIO_WRITE_DURABLE, durable_write_done);
	return true;
}
