/* Owner records on storage.
 *
 * A record is one group of a GKeyFile in a file of its own. It is replaced
 * whole: a temporary file is written and flushed, renamed over the old record,
 * and the directory flushed; so a reader sees the old one or the new one, also
 * after a crash. A temporary file that a crash left is never read, and swept
 * when it is older than any write takes. Should a sweep take one that is in use
 * all the same, the rename finds nothing and the write begins again.
 *
 * Who can write to the pool can write anything here: no link is followed, on the
 * way to the directory neither (POOL is absolute, as realpath() gives it), no
 * more is read than a record has, and no field is used before all were
 * checked. */
#include "owner/record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/fault.h"
#include "core/place.h"
#include "core/thread.h"
#include "text.h"

#define TEMPORARY_PREFIX ".new-"
#define TEMPORARY_AGE_SECONDS 60
#define RECORD_BYTES_MAX 16384
/* A directory or a temporary file can be swept away meanwhile. */
#define TRIES 3

static const char *const directories[] = {".leafdisk", "owners"};

void owner_record_clear(struct owner_record *record)
{
	g_free(record->host);
	g_free(record->boot_id);
	g_free(record->cache_path);
	g_free(record->mode);
	g_free(record->since);
	*record = (struct owner_record){0};
}

/* ---- Directories ----------------------------------------------------------- */

static int open_owners(const char *pool, bool make)
{
	int fd;

	thread_assert_may_block();
	fd = place_open_absolute(pool);
	for (unsigned i = 0; i < G_N_ELEMENTS(directories) && fd >= 0; i++) {
		int inner = place_enter(fd, directories[i], make);

		close(fd);
		fd = inner;
	}
	return fd;
}

static void close_owners(int owners)
{
	if (owners >= 0)
		close(owners);
}

/* ---- Files ----------------------------------------------------------------- */

/* Bytes, or -errno; -EFBIG: more than a record has. */
static ssize_t read_file(int owners, const char *name, char *text)
{
	int fault = fault_hit("owner.read", name), fd = -1;
	size_t length = 0;
	ssize_t n = 1;
	struct stat st;

	if (fault == 0)
		fd = openat(owners, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return fault < 0 ? fault : -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return -ELOOP;
	}
	while (n > 0 && length < RECORD_BYTES_MAX) {
		n = read(fd, text + length, RECORD_BYTES_MAX - length);
		length += n > 0 ? (size_t)n : 0;
	}
	if (n < 0)
		n = -errno;
	close(fd);
	if (n < 0)
		return n;
	return length < RECORD_BYTES_MAX ? (ssize_t)length : -EFBIG;
}

static bool set_read_error(const char *pool, const char *name, int errnum, GError **error)
{
	if (errnum == ELOOP || errnum == ENOTDIR)
		return error_set(error, EINVAL,
				 "%s/.leafdisk/owners/%s: is no owner record: it, or a directory "
				 "above it, is not a regular one",
				 pool, name);
	if (errnum == EFBIG)
		return error_set(error, EINVAL, "%s/.leafdisk/owners/%s: is no owner record: it has %d bytes or more",
				 pool, name, RECORD_BYTES_MAX);
	return error_set_errno(error, errnum, "%s/.leafdisk/owners/%s: cannot be read", pool, name);
}

bool owner_read(const char *pool, const char *name, struct owner_record *record, GError **error)
{
	g_autofree char *text = g_malloc(RECORD_BYTES_MAX);
	int owners = open_owners(pool, false);
	ssize_t length = owners < 0 ? owners : read_file(owners, name, text);
	const char *why;

	*record = (struct owner_record){0};
	close_owners(owners);
	if (length < 0)
		return set_read_error(pool, name, (int)-length, error);
	if (owner_text_parse(text, (size_t)length, record, &why))
		return true;
	owner_record_clear(record);
	return error_set(error, EINVAL, "%s/.leafdisk/owners/%s: is no owner record: %s%s", pool, name,
			 why ? "no good value for " : "it has no group [owner]", why ? why : "");
}

enum answer owner_find(const char *pool, const char *name, struct owner_record *record, GError **error)
{
	g_autoptr(GError) inner = NULL;

	if (owner_read(pool, name, record, &inner))
		return ANSWER_YES;
	if (error_to_errno(inner) == -ENOENT)
		return ANSWER_NO;
	g_propagate_error(error, g_steal_pointer(&inner));
	return ANSWER_UNKNOWN;
}

/* 0 or -errno, in the middle too: what was read until then is not all. */
static int read_names(DIR *directory, GPtrArray *names)
{
	int fault = fault_hit("owner.list", NULL);
	struct dirent *entry;

	if (fault)
		return fault;
	while ((errno = 0, entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			g_ptr_array_add(names, g_strdup(entry->d_name));
	return -errno;
}

GPtrArray *owner_list(const char *pool, GError **error)
{
	g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
	int owners = open_owners(pool, false);
	DIR *directory = owners < 0 ? NULL : fdopendir(owners);
	int result = owners < 0 ? owners : -errno;

	if (directory) {
		result = read_names(directory, names);
		closedir(directory);
	} else {
		close_owners(owners);
	}
	if (result == 0)
		return g_steal_pointer(&names);
	set_read_error(pool, "", -result, error);
	return NULL;
}

static int write_temporary(int owners, const char *temporary, const char *name, const char *text, size_t length)
{
	int fd = openat(owners, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	int result = fd < 0 ? -errno : fault_hit("owner.write", name);
	ssize_t n = result < 0 ? 0 : write(fd, text, length);

	if (result == 0 && n != (ssize_t)length)
		result = n < 0 ? -errno : -ENOSPC;
	if (result == 0 && fsync(fd) < 0)
		result = -errno;
	if (fd >= 0 && close(fd) < 0 && result == 0)
		result = -errno;
	return result;
}

static int replace_file(int owners, const char *name, const char *text, size_t length)
{
	g_autofree char *temporary = g_strdup_printf(TEMPORARY_PREFIX "%08x%08x", g_random_int(), g_random_int());
	int result = write_temporary(owners, temporary, name, text, length);

	if (result == 0)
		result = fault_hit("owner.rename", name);
	if (result == 0 && renameat(owners, temporary, owners, name) < 0)
		result = -errno;
	if (result < 0) {
		unlinkat(owners, temporary, 0);
		return result;
	}
	return fsync(owners) < 0 ? -errno : 0;
}

static char *now_text(void)
{
	g_autoptr(GDateTime) now = g_date_time_new_now_utc();

	return g_date_time_format(now, "%Y-%m-%dT%H:%M:%SZ");
}

bool owner_write(const char *pool, const char *name, struct owner_record *record, GError **error)
{
	g_autofree char *text = NULL;
	int result = -ENOENT;
	gsize length;

	if (!record->since)
		record->since = now_text();
	text = owner_text_format(record, &length);
	for (unsigned i = 0; i < TRIES && result == -ENOENT; i++) {
		int owners = open_owners(pool, true);

		result = owners < 0 ? owners : replace_file(owners, name, text, length);
		close_owners(owners);
	}
	return result == 0 || error_set_errno(error, -result, "%s/.leafdisk/owners/%s: cannot be written", pool, name);
}

bool owner_remove(const char *pool, const char *name, GError **error)
{
	int owners = open_owners(pool, false);
	int result = owners < 0 ? owners : 0;

	if (owners >= 0 && (unlinkat(owners, name, 0) < 0 || fsync(owners) < 0))
		result = -errno;
	close_owners(owners);
	return result == 0 || result == -ENOENT ||
	       error_set_errno(error, -result, "%s/.leafdisk/owners/%s: cannot be removed", pool, name);
}

void owner_sweep(const char *pool)
{
	int owners = open_owners(pool, false);

	if (owners >= 0)
		place_sweep(owners, TEMPORARY_PREFIX, TEMPORARY_AGE_SECONDS);
	close_owners(owners);
}
