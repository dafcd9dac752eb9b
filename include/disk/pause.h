/* Pauses: somebody holds a disk's requests back.
 *
 * Requests that are in work finish, and those that come wait, without an error, until the
 * last pause ends. Each closes the gate for itself (gates nest), and nothing but the gate:
 * no lock is held, so that the disk is opened and closed, drained and given another mode
 * meanwhile.
 *
 *     CLOSING -> HELD     no request is in work any more
 *     CLOSING -> ENDED    given up, or resumed by another
 *     HELD    -> ENDED    let go by its holder, or resumed by another */
#ifndef LEAFDISK_DISK_PAUSE_H
#define LEAFDISK_DISK_PAUSE_H

#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

struct disk;
/* One holder's. Whoever begins it has a reference to its disk until it is freed. */
struct disk_pause;

#define DISK_HOLDER_BYTES 16

struct disk_holder {
	char program[DISK_HOLDER_BYTES]; /* empty: not known */
	pid_t pid;			 /* 0: not known */
	bool held;			 /* false: requests in work are still waited for */
	struct timespec since;		 /* realtime */
};

/* Pauses DISK for HOLDER, whose program and pid are taken. Blocks until no request is in
 * work, as long as GO_ON, which is asked several times a second, says so, and for a while
 * at most. NULL and ERROR, the disk goes on as before: EINTR given up, ETIMEDOUT a request
 * in work has no answer, ECANCELED resumed meanwhile. */
struct disk_pause *disk_pause_begin(struct disk *disk, const struct disk_holder *holder, bool (*go_on)(void *opaque),
				    void *opaque, GError **error);
/* Any thread, any number of times; does not block. True: it was still held. */
bool disk_pause_end(struct disk_pause *pause);
bool disk_pause_has_ended(const struct disk_pause *pause);
/* False: it has ended. */
bool disk_pause_get_holder(const struct disk_pause *pause, struct disk_holder *holder);
/* Ends it as well. NULL is allowed. */
void disk_pause_free(struct disk_pause *pause);
struct disk *disk_pause_disk(const struct disk_pause *pause);
/* "leafctl (pid 123)". g_free. */
char *disk_pause_text(const struct disk_pause *pause);
char *disk_holder_text(const struct disk_holder *holder);

/* Ends all pauses of DISK, also those that are still closing; false: there was none. Any
 * thread; does not block. */
bool disk_resume(struct disk *disk);
/* struct disk_holder, in the order in which they began. g_array_unref. */
GArray *disk_get_holders(struct disk *disk);
/* True: ERROR (may be NULL) says by whom; what would wait for the end of that is to be
 * refused (EBUSY). */
bool disk_is_paused(struct disk *disk, GError **error);

#endif
