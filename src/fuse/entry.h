/* The reply that introduces a disk to the kernel. */
#ifndef LEAFDISK_FUSE_ENTRY_H
#define LEAFDISK_FUSE_ENTRY_H

#include "request.h"

/* Reads the attributes of what is pinned; sets request->error. On a waiter. */
void entry_prepare(struct request *request);
/* Replies with request->node and its attributes, or the error, and frees the
 * request. With HANDLE it is the reply to a create. */
void entry_reply(struct request *request, struct handle *handle);

#endif
