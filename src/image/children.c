/* A parent whose mark is looked at and changed.
 *
 * Its image may be open for reading, below disks that are in use, so the lock is that of
 * a reader, which keeps writers out, and there is another apart from it against others who
 * change the mark. Who has a parent open for reading keeps what he has read of it. */
#include "image/children.h"

#include <errno.h>

#include "core/error.h"
#include "driver.h"
#include "file.h"
#include "loop_device.h"
#include "mark.h"
#include "qemu_lock.h"

struct image_children {
	struct image_file file;
	const struct image_ops *ops;
	char *mark;
};

static bool lock_parent(struct image_file *file, GError **error)
{
	static const char advice[] =
		" that writes it, or has it open in a mount where it can be written; close it there "
		"first";

	if (aio_file_lock(&file->aio, false, advice, error) == ANSWER_NO ||
	    qemu_lock_take(&file->aio, false, advice, error) == ANSWER_NO ||
	    !loop_device_allows(&file->aio, false, error))
		return false;
	return aio_fd_lock_apart(file->aio.buffered_fd) != ANSWER_NO ||
	       error_set(error, EBUSY, "%s: another process is making a child of it; try again", file->path);
}

struct image_children *image_children_open(const char *path, enum image_format format, GError **error)
{
	struct image_children *children = g_new0(struct image_children, 1);

	children->ops = image_driver_of(path, format, error);
	if (children->ops &&
	    image_file_open(&children->file, IMAGE_BY_PATH, path, IMAGE_WRITABLE | IMAGE_NO_LOCK | IMAGE_NO_DIRECT,
			    error) &&
	    lock_parent(&children->file, error) && children->ops->read_mark(&children->file, &children->mark, error))
		return children;
	image_children_close(children);
	return NULL;
}

const char *image_children_mark(const struct image_children *children)
{
	return children->mark;
}

/* TEXT is taken over. */
static bool change(struct image_children *children, char *text, GError **error)
{
	if (g_strcmp0(text, children->mark) != 0 && !children->ops->write_mark(&children->file, text, error)) {
		g_free(text);
		return false;
	}
	g_free(children->mark);
	children->mark = text;
	return true;
}

bool image_children_add(struct image_children *children, const uint8_t uuid[IMAGE_UUID_BYTES], const char *path,
			GError **error)
{
	return change(children, mark_with(children->mark, uuid, path), error);
}

bool image_children_remove(struct image_children *children, const uint8_t *uuid, GError **error)
{
	return change(children, uuid ? mark_without(children->mark, uuid) : NULL, error);
}

void image_children_close(struct image_children *children)
{
	if (!children)
		return;
	image_file_close(&children->file);
	g_free(children->mark);
	g_free(children);
}

char *image_children_of_one(const uint8_t uuid[IMAGE_UUID_BYTES], const char *path)
{
	return mark_with(NULL, uuid, path);
}
