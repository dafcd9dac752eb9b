/* The control tree, MOUNTPOINT/.leafdisk: what is in it. */
#ifndef LEAFDISK_FUSE_CONTROL_TREE_H
#define LEAFDISK_FUSE_CONTROL_TREE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "control/tree.h"
#include "fuse/directory.h"
#include "fuse/session.h"

struct channel;
struct disk_pause;

/* Inode numbers from here on are the tree's; nodes begin at 2 and count up. */
#define CONTROL_INO (UINT64_C(1) << 48)

static inline bool control_owns(uint64_t ino)
{
	return ino >= CONTROL_INO;
}

bool control_is_directory(uint64_t ino);

/* Whether INO is a file that takes commands. */
bool control_is_writable(uint64_t ino);

/* The number of NAME in directory PARENT, or of the tree itself in the top
 * directory. 0 or -ENOENT, -ESTALE. Blocks. */
int control_find(struct session *session, uint64_t parent, const char *name, uint64_t *ino);
/* 0, or -ESTALE when the disk that INO is about is no longer there. */
int control_get_attributes(struct session *session, uint64_t ino, struct stat *st);
/* What is in directory INO. 0 or a negative errno. Blocks. */
int control_list(struct session *session, uint64_t ino, struct directory **directory);
/* File INO is read on: what it says grows, and who has read all of it reads what is new. */
bool control_is_read_on(uint64_t ino);
/* Appends what file INO says from *NEXT on, 0 at first, and moves *NEXT behind that. Any thread; does not
 * block. */
void control_read_on(uint64_t ino, uint64_t *next, GString *text);
/* Appends what file INO says now. 0, or a negative errno that has been logged
 * where there is more to say. Blocks. */
int control_make(struct session *session, uint64_t ino, GString *text);

struct control_input {
	const char *data; /* what was written, whatever it is */
	size_t size;
	uint64_t next;		 /* what the open file has of one that is read on */
	struct channel *channel; /* of the request */
	pid_t thread;		 /* that wrote it; 0: it is not seen from here */
	/* Asked several times a second by what takes long; false: give up. */
	bool (*go_on)(void *opaque, uint64_t dirty_bytes);
	void *opaque;
	struct disk_pause **pause; /* gets one that the file is to hold */
};
/* Does what was written to file INO, which is writable. 0 or a negative errno;
 * `last_error` has the sentence. Blocks, and may block for long. */
int control_write(struct session *session, uint64_t ino, const struct control_input *input);

#endif
