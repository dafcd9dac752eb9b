/* What the file under an image and the file under a cache have in common: a pair of
 * descriptors, a lock, a size, and transfers of whole lengths.
 *
 * Everything here blocks: any thread but a loop's. Nothing is tried again but after
 * EINTR. */
#ifndef LEAFDISK_AIO_FILE_H
#define LEAFDISK_AIO_FILE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "aio/request.h"
#include "core/answer.h"

/* ---- A pair of descriptors ------------------------------------------------ */

/* Neither is open. NAME outlives FILE. */
void aio_file_init(struct aio_file *file, const char *name, enum store store);
/* The very file that buffered_fd is open on, with FLAGS (O_RDONLY or O_RDWR) and
 * O_DIRECT; where its file system has none the page cache serves all. */
void aio_file_open_direct(struct aio_file *file, int flags);
void aio_file_close(struct aio_file *file);
/* ST of it. */
void aio_file_set_device(struct aio_file *file, const struct stat *st);
/* As aio_fd_lock(); an exclusive one of a block device, before aio_file_open_direct(),
 * claims the device as a mount does, through whatever node it is reached. NO with ERROR, of which ADVICE is the end;
 * UNKNOWN: a warning says so. */
enum answer aio_file_lock(struct aio_file *file, bool exclusive, const char *advice, GError **error);
/* As aio_fd_size(). */
int64_t aio_file_size(const struct aio_file *file);

/* ---- One of them ---------------------------------------------------------- */

/* ST of what FD is open on, NAME in a message. False with ERROR for anything but a
 * regular file or a block device. */
bool aio_fd_look(int fd, const char *name, struct stat *st, GError **error);
/* An open-file-description lock, exclusive or shared, until FD is closed. NO: another
 * open of the file excludes it, and has for a second. UNKNOWN with errno: there are no
 * locks here. */
enum answer aio_fd_lock(int fd, bool exclusive);
/* Another lock of the same file, exclusive, of those who have the first one for reading. Waits
 * for half a minute. */
enum answer aio_fd_lock_apart(int fd);
/* Whether a lock of FD excludes other hosts as well, if any has the file. UNKNOWN: its file
 * system may keep locks to each host. */
enum answer aio_fd_lock_reaches(int fd);
/* Bytes; a block device's capacity. -errno on failure. */
int64_t aio_fd_size(int fd);

/* 0 or -errno; a read past the end is -ENODATA. Where FD is O_DIRECT all three must be
 * aligned. */
int aio_fd_read(int fd, void *data, size_t length, uint64_t offset);
int aio_fd_write(int fd, const void *data, size_t length, uint64_t offset);

/* What is left of a transfer; each call below takes off what it has done, also before
 * an error. */
struct aio_rest {
	char *data;
	size_t length;
	uint64_t offset;
};
/* 0, -errno, or 1 at the end of the file. */
int aio_fd_read_on(int fd, struct aio_rest *rest);
/* 0 or -errno. */
int aio_fd_write_on(int fd, struct aio_rest *rest);

#endif
