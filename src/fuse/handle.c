/* Open files. */
#include "handle.h"

#include "core/error.h"
#include "core/fault.h"
#include "core/log.h"
#include "core/process.h"
#include "end.h"
#include "refusal.h"

/* The attributes are read before the open is counted: from then on the loops
 * tell them from memory. */
static void count_open(struct session *session, struct handle *handle, bool *keep_cache)
{
	struct disk_attributes attributes = {0};
	bool known = disk_get_attributes(handle->disk, &attributes) == 0;
	bool keep = node_opened(session->nodes, handle->node, handle->write, &attributes);

	if (keep_cache)
		*keep_cache = known && keep;
	LOCK_GUARD(&session->handles_lock);
	list_append(&session->handles, &handle->link);
}

/* A disk that is open already needs nothing more. */
static int open_disk(struct disk *disk, bool write, GError **error)
{
	if (disk_open_count(disk) == 0 && !process_has_room(error))
		return error_to_errno(*error);
	return disk_open(disk, write, error);
}

int handle_open(struct session *session, struct node *node, bool write, struct handle **handle, bool *keep_cache)
{
	g_autoptr(GError) error = NULL;
	struct disk *disk = node_disk(session->nodes, node);
	int result = open_disk(disk, write, &error);

	if (result != 0) {
		if (error) {
			refusal_log_disk(disk, error);
			refusal_keep(session, node, error->message);
		}
		disk_unref(disk);
		return result;
	}
	*handle = g_new0(struct handle, 1);
	(*handle)->node = node_get(session->nodes, node_ino(node));
	(*handle)->disk = disk;
	(*handle)->write = write;
	count_open(session, *handle, keep_cache);
	events_stir();
	log_debug(LOG_FUSE, "%s: opened for %s", disk_name(disk), write ? "writing" : "reading");
	return 0;
}

void handle_begin_close(struct session *session, struct handle *handle, void (*hand_over)(void *opaque), void *opaque)
{
	LOCK_GUARD(&session->handles_lock);
	handle->closing = ++session->closes_begun;
	hand_over(opaque);
}

uint64_t handle_closes_begun(struct session *session)
{
	LOCK_GUARD(&session->handles_lock);
	return session->closes_begun;
}

static bool is_closing_locked(struct session *session, const struct disk *disk, uint64_t last)
{
	lock_assert_mine(&session->handles_lock);
	list_foreach(link, &session->handles)
	{
		const struct handle *handle = container_of(link, struct handle, link);

		if (handle->disk == disk && handle->closing != 0 && handle->closing <= last)
			return true;
	}
	return false;
}

/* Waiting work starts in the order that it was handed over, and closes are
 * handed over in the order of their numbers, under the lock; the work that waits
 * here was handed over after it had looked at the number. So what it waits for
 * runs already, or has run, also where the kernel gives no more threads. */
void handle_await_closes(struct session *session, const struct disk *disk, uint64_t last)
{
	LOCK_GUARD(&session->handles_lock);
	while (is_closing_locked(session, disk, last))
		lock_wait(&session->handles_lock, &session->handle_closed);
}

static void forget_handle(struct session *session, struct handle *handle)
{
	LOCK_GUARD(&session->handles_lock);
	list_remove(&handle->link);
	condition_broadcast(&session->handle_closed);
}

int handle_close(struct session *session, struct handle *handle)
{
	int result;

	node_closing(session->nodes, handle->node, handle->write);
	result = disk_close(handle->disk);
	if (result == 0)
		result = fault_hit("handle.close", disk_name(handle->disk));
	if (result != 0 && atomic_load(&session->stopping))
		atomic_store(&session->close_failed, true);
	if (result != 0)
		log_disk(EVENT_ERROR, disk_name(handle->disk), "%s: closing failed: %s", disk_name(handle->disk),
			 g_strerror(-result));
	else
		log_debug(LOG_FUSE, "%s: closed", disk_name(handle->disk));
	end_note_progress(session->end);
	forget_handle(session, handle);
	disk_unref(handle->disk);
	node_put(session->nodes, handle->node);
	g_free(handle);
	return result;
}

void handle_close_all(struct session *session)
{
	struct list *link;

	while ((link = list_first(&session->handles)))
		handle_close(session, container_of(link, struct handle, link));
}
