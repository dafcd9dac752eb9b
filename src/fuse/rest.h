/* What an ended mount still has to write back, for whoever waits for its end. */
#ifndef LEAFDISK_FUSE_REST_H
#define LEAFDISK_FUSE_REST_H

#include <stdbool.h>
#include <stdint.h>

/* Of a mount that has ended, before anybody has counted. */
#define REST_UNCOUNTED (-1)

struct rest {
	bool ended;
	unsigned major; /* of the device number of one that has not; 0:0: it is being started */
	unsigned minor;
	int64_t left_bytes; /* of one that has */
};

/* A descriptor for what this process's mount tells, at first that it is being started; -1: others
 * are told nothing. Before the cache is opened, which others look for. */
int rest_new(void);
/* Any thread; does not block. FD from rest_new(). */
void rest_tell(int fd, const struct rest *rest);
void rest_tell_left(int fd, int64_t left_bytes);

/* Whether a link of /proc/PID/fd that leads to TARGET is such a descriptor. */
bool rest_is_target(const char *target);
/* FD is open on another process's. False: it tells nothing. */
bool rest_read(int fd, struct rest *rest);

#endif
