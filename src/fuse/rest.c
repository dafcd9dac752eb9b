/* What an ended mount still has to write back, for whoever waits for its end.
 *
 * A file in memory and without a name, which others find among the descriptors of the process:
 * it needs no place, and goes with the process. It has one line of a fixed length: "ended" and
 * the bytes that are left, or before that "serves" and the mount's device number, which is 0:0
 * as long as the mount is not there yet. */
#include "rest.h"

#include <glib.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/log.h"

#define NAME "leafdisk-rest"
#define LINE_BYTES 40

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif

void rest_tell(int fd, const struct rest *rest)
{
	char text[LINE_BYTES], line[LINE_BYTES + 1];

	if (rest->ended)
		g_snprintf(text, sizeof(text), "ended %" PRId64, rest->left_bytes);
	else
		g_snprintf(text, sizeof(text), "serves %u:%u", rest->major, rest->minor);
	g_snprintf(line, sizeof(line), "%-*s\n", LINE_BYTES - 1, text);
	if (fd >= 0 && pwrite(fd, line, LINE_BYTES, 0) != LINE_BYTES)
		log_debug(LOG_FUSE, "nobody is told what is left to write back: %m");
}

/* Kernels before 6.3 do not know the seal, and later ones complain where nothing is said of it. */
int rest_new(void)
{
	int fd = memfd_create(NAME, MFD_CLOEXEC | MFD_NOEXEC_SEAL);

	if (fd < 0)
		fd = memfd_create(NAME, MFD_CLOEXEC);
	if (fd < 0)
		log_debug(LOG_FUSE, "nobody will be told what is left to write back: %m");
	else
		rest_tell(fd, &(struct rest){0});
	return fd;
}

void rest_tell_left(int fd, int64_t left_bytes)
{
	rest_tell(fd, &(struct rest){.ended = true, .left_bytes = left_bytes});
}

bool rest_is_target(const char *target)
{
	return g_strcmp0(target, "/memfd:" NAME " (deleted)") == 0;
}

bool rest_read(int fd, struct rest *rest)
{
	char line[LINE_BYTES + 1] = {0};

	*rest = (struct rest){.left_bytes = REST_UNCOUNTED};
	if (pread(fd, line, LINE_BYTES, 0) != LINE_BYTES)
		return false;
	rest->ended = sscanf(line, "ended %" SCNd64, &rest->left_bytes) == 1;
	return rest->ended || sscanf(line, "serves %u:%u", &rest->major, &rest->minor) == 2;
}
