/* A listing: the snapshot of a directory that opendir takes.
 *
 * An entry's offset is its place in the snapshot plus one; so a reader sees
 * each name once whatever happens meanwhile. */
#ifndef LEAFDISK_FUSE_DIRECTORY_H
#define LEAFDISK_FUSE_DIRECTORY_H

#include "session.h"

struct directory;

/* With the entries "." and "..". */
struct directory *directory_new(uint64_t ino, uint64_t parent);
/* NULL is allowed. */
void directory_free(struct directory *directory);

/* Between these two the kernel has it. Any thread. */
void directory_opened(struct session *session, struct directory *directory);
void directory_close(struct session *session, struct directory *directory);
/* What the kernel has not given back at the end, when no loop runs any more. */
void directory_close_all(struct session *session);

/* MODE: the type bits. */
void directory_add(struct directory *directory, const char *name, uint64_t ino, mode_t mode);

/* Entries from offset FROM on, as many as fit into SIZE bytes, in the kernel's
 * form. Returns the bytes used; 0 at the end. */
size_t directory_fill(fuse_req_t fuse, const struct directory *directory, uint64_t from, char *buffer, size_t size);

#endif
