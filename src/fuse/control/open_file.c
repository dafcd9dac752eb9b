/* Open files of the control tree: what each says, and what it holds.
 *
 * A pause is held by an open file, and ends with its release, which the kernel sends for the
 * last process that has the file, however that ends. It may end before: a resume and the end
 * of the mount leave the file a pause that has ended. */
#include "open_file.h"

#include <errno.h>

#include "core/log.h"
#include "pause.h"
#include "tree.h"

struct control_file {
	struct list link; /* on session->control_files */

	/* Under handles_lock. */
	GBytes *text;	/* changed of a file that is read on */
	uint64_t begin; /* offset of the text */
	uint64_t next;
	struct disk_pause *pause; /* NULL: none */
};

struct control_file *control_file_new(struct session *session, GString *text)
{
	struct control_file *file = g_new0(struct control_file, 1);

	file->text = g_string_free_to_bytes(text);
	LOCK_GUARD(&session->handles_lock);
	list_append(&session->control_files, &file->link);
	return file;
}

/* With the reference to its disk. NULL is allowed. */
static void drop(struct disk_pause *pause)
{
	struct disk *disk = pause ? disk_pause_disk(pause) : NULL;

	disk_pause_free(pause);
	disk_unref(disk);
}

static void let_go(struct disk_pause *pause)
{
	g_autofree char *who = disk_pause_text(pause);

	if (disk_pause_end(pause))
		log_disk(EVENT_INFO, disk_name(disk_pause_disk(pause)), "%s: no longer paused by %s",
			 disk_name(disk_pause_disk(pause)), who);
	drop(pause);
}

void control_file_free(struct session *session, struct control_file *file)
{
	lock_take(&session->handles_lock);
	list_remove(&file->link);
	lock_let_go(&session->handles_lock);
	if (file->pause)
		let_go(file->pause);
	g_bytes_unref(file->text);
	g_free(file);
}

void control_close_all(struct session *session)
{
	struct list *link;

	while ((link = list_first(&session->control_files)))
		control_file_free(session, container_of(link, struct control_file, link));
}

/* ---- Pauses ------------------------------------------------------------------- */

static bool has_ended(const struct control_file *file)
{
	return file->pause && disk_pause_has_ended(file->pause);
}

int control_file_keep(struct session *session, struct control_file *file, struct disk_pause *pause)
{
	struct disk_pause *unused = pause;
	int result = file ? 0 : -EBADF;

	lock_take(&session->handles_lock);
	if (atomic_load(&session->stopping))
		result = -EIO;
	if (result == 0 && (!file->pause || has_ended(file))) {
		unused = file->pause;
		file->pause = pause;
	}
	lock_let_go(&session->handles_lock);
	drop(unused);
	return result;
}

void control_files_resume(struct session *session)
{
	LOCK_GUARD(&session->handles_lock);
	list_foreach(link, &session->control_files)
	{
		struct control_file *file = container_of(link, struct control_file, link);

		if (file->pause)
			(void)disk_pause_end(file->pause);
	}
}

/* ---- What it says --------------------------------------------------------------- */

/* NULL: the end of the mount has ended it. */
static GBytes *pause_text_locked(struct session *session, const struct control_file *file)
{
	GString *text = g_string_new(NULL);
	struct disk_holder holder;

	lock_assert_mine(&session->handles_lock);
	if (disk_pause_get_holder(file->pause, &holder))
		control_append_holder(text, &holder);
	else if (atomic_load(&session->stopping))
		return g_string_free(text, TRUE), NULL;
	return g_string_free_to_bytes(text);
}

/* A write has moved the offset too, so what is new begins wherever it is read. */
static void read_on(struct control_file *file, uint64_t ino, uint64_t offset)
{
	GString *text = g_string_new(NULL);

	control_read_on(ino, &file->next, text);
	if (text->len == 0) {
		g_string_free(text, TRUE);
		return;
	}
	file->begin = offset;
	g_bytes_unref(file->text);
	file->text = g_string_free_to_bytes(text);
}

GBytes *control_file_text(struct session *session, struct control_file *file, uint64_t ino, uint64_t offset,
			  size_t *from)
{
	GBytes *text;
	size_t length;

	LOCK_GUARD(&session->handles_lock);
	if (control_is_read_on(ino) && offset >= file->begin + g_bytes_get_size(file->text))
		read_on(file, ino, offset);
	text = file->pause ? pause_text_locked(session, file) : g_bytes_ref(file->text);
	length = text ? g_bytes_get_size(text) : 0;
	*from = offset < file->begin ? length : (size_t)MIN(offset - file->begin, length);
	return text;
}

uint64_t control_file_next(struct session *session, const struct control_file *file)
{
	LOCK_GUARD(&session->handles_lock);
	return file ? file->next : 0;
}
