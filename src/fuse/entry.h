/* The reply that introduces a disk to the kernel. */
#ifndef LEAFDISK_FUSE_ENTRY_H
#define LEAFDISK_FUSE_ENTRY_H

#include "request.h"

/* Pins DISK's node in REQUEST and reads its attributes; sets request->error.
 * On a background thread. */
void entry_prepare(struct request *request, struct disk *disk);
/* Replies with request->node and its attributes, or the error, and frees the
 * request. With HANDLE it is the reply to a create. */
void entry_reply(struct request *request, struct handle *handle);

#endif
