/* The process: its first descriptors and its limits. */
#include "core/process.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/memory.h"

/* The lowest free number is the one that is given. A place without /dev/null
 * has a root directory, which cannot be read or written. */
static void open_standard_files(void)
{
	for (int standard = 0; standard <= 2; standard++)
		if (fcntl(standard, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
			(void)open("/", O_PATH);
}

/* Of open files, as the caller gave it; 0: not known. */
static rlim_t files_before;

static void raise_files_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	files_before = limit.rlim_cur;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* glibc maps 128 MiB for the heap of each thread, to have 64 of them aligned. */
static void save_address_space(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
		mallopt(M_ARENA_MAX, 1);
}

void process_begin(void)
{
	save_address_space();
	open_standard_files();
	raise_files_limit();
	signal(SIGXFSZ, SIG_IGN);
}

void process_restore(void)
{
	struct rlimit limit;

	signal(SIGXFSZ, SIG_DFL);
	if (!files_before || getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = files_before;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* The kernel tells the number as the directory's size since version 6.2. */
static rlim_t count_descriptors(void)
{
	const char *path = "/proc/self/fd";
	struct stat st;
	rlim_t count = 0;
	GDir *directory;

	if (stat(path, &st) == 0 && st.st_size > 0)
		return (rlim_t)st.st_size;
	directory = g_dir_open(path, 0, NULL);
	while (directory && g_dir_read_name(directory))
		count++;
	if (directory)
		g_dir_close(directory);
	return directory ? count : RLIM_INFINITY;
}

/* An open disk has two or more. Each request that is under way about a name, an
 * open or a close needs some for a moment, and there may be many at once; a record
 * that cannot be read then costs more than a disk that is refused. So open disks get
 * a quarter. */
static bool has_descriptors(void)
{
	struct rlimit limit = {0};

	(void)getrlimit(RLIMIT_NOFILE, &limit);
	return count_descriptors() < limit.rlim_cur / 4;
}

bool process_has_room(GError **error)
{
	if (!has_descriptors())
		return error_set_errno(error, EMFILE, "no other disk can be opened");
	if (!memory_has_room())
		return error_set_errno(error, ENOMEM, "no other disk can be opened");
	return true;
}
