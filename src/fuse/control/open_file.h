/* Open files of the control tree: what each says, and what it holds. */
#ifndef LEAFDISK_FUSE_CONTROL_OPEN_FILE_H
#define LEAFDISK_FUSE_CONTROL_OPEN_FILE_H

#include <glib.h>

#include "disk/pause.h"
#include "fuse/session.h"

struct control_file;

/* NULL: the kernel names none. */
static inline struct control_file *control_file_of(const struct fuse_file_info *file)
{
	return (struct control_file *)(uintptr_t)file->fh;
}

/* TEXT is taken over. */
struct control_file *control_file_new(struct session *session, GString *text);
/* What it holds ends. Any thread; does not block. */
void control_file_free(struct session *session, struct control_file *file);
/* What FILE of number INO has at OFFSET, and *FROM there in it: what it said when it was opened; of
 * one that is read on, what has come since, behind the end of that; of one that holds a pause the
 * line of that, and nothing once another has ended it. g_bytes_unref. NULL: the end of the mount
 * has ended it. */
GBytes *control_file_text(struct session *session, struct control_file *file, uint64_t ino, uint64_t offset,
			  size_t *from);
/* Up to where it was read on; 0 for NULL. */
uint64_t control_file_next(struct session *session, const struct control_file *file);

/* FILE, or NULL where the kernel named none, holds PAUSE, which is taken over with a reference to its disk, from now
 * on; one pause is enough for it. 0, or a negative errno: the mount ends, or there is no file, and the pause has ended.
 */
int control_file_keep(struct session *session, struct control_file *file, struct disk_pause *pause);

/* The mount ends, so that requests must not wait any more: no pause is left, and none is
 * kept any more once SESSION is stopping. Any thread; does not block. */
void control_files_resume(struct session *session);
/* Frees what is open, at the end, when no loop runs any more. */
void control_close_all(struct session *session);

#endif
