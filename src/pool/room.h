/* How full the file system of a pool is. */
#ifndef LEAFDISK_POOL_ROOM_H
#define LEAFDISK_POOL_ROOM_H

#include <stdbool.h>
#include <stdint.h>

struct room;

/* Begins to look at the file system of the directory PATH. NULL: there is no thread for that. */
struct room *room_watch(const char *path);
/* Does not wait for a look that is under way. NULL is allowed. */
void room_stop(struct room *room);

/* Looks soon. Any thread; does not block. */
void room_look_soon(struct room *room);
/* As the last look has found it; false: none has. Any thread; does not block. */
bool room_recall(struct room *room, uint64_t *size_bytes, uint64_t *free_bytes);

#endif
