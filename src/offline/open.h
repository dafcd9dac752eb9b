/* Disks that a tool opens without a mount, and a loop to use them from. */
#ifndef LEAFDISK_OFFLINE_OPEN_H
#define LEAFDISK_OFFLINE_OPEN_H

#include "disk/object.h"

/* To look takes no lock. */
enum open_mode { OPEN_TO_LOOK, OPEN_TO_READ, OPEN_TO_WRITE };

/* FORMAT, or when it is NONE what name and magic say; NONE with ERROR. */
enum image_format offline_format_of(const char *path, enum image_format format, GError **error);
/* PATH's chain. With ERROR set: as far as it was found, or NULL. */
GPtrArray *offline_links(const char *path, enum image_format format, const char *layers, GError **error);
/* An open disk made of PATH's chain, or NULL. */
struct disk *offline_open(const char *path, enum image_format format, const char *layers, enum open_mode mode,
			  GError **error);
bool offline_close(struct disk *disk, GError **error);

/* A loop of the caller's own with what disks need. */
struct offline_loop {
	struct loop *loop;
	struct disk_context *context;
};
bool offline_loop_init(struct offline_loop *loop, GError **error);
void offline_loop_clear(struct offline_loop *loop);

/* One operation without data (flush, resize), waited for. 0 or -errno. */
int64_t offline_run(struct disk *disk, enum disk_op op, uint64_t length);

#endif
