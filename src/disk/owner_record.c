/* Owner records on storage.
 *
 * A record is one group of a GKeyFile in a file of its own. It is replaced
 * whole: a temporary file is written and flushed, renamed over the old record,
 * and the directory flushed; so a reader sees the old one or the new one, also
 * after a crash. A temporary file that a crash left is never read, and swept
 * when it is older than any write takes. Should a sweep take one that is in use
 * all the same, the rename finds nothing and the write begins again.
 *
 * Who can write to the pool can write anything here: no link is followed, no
 * more is read than a record has, and no field is used before all were
 * checked. */
#include "owner_record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/fault.h"

#define GROUP "owner"
#define TEMPORARY_PREFIX ".new-"
#define TEMPORARY_AGE_SECONDS 60
#define RECORD_BYTES_MAX 16384
#define TEXT_BYTES_MAX 4096
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

/* ---- Text ------------------------------------------------------------------ */

static bool has_control(const char *text)
{
	for (; *text; text++)
		if (g_ascii_iscntrl(*text))
			return true;
	return false;
}

/* NULL: *WHY says what is wrong. */
static char *get_text(GKeyFile *file, const char *key, const char **why)
{
	char *text = g_key_file_get_string(file, GROUP, key, NULL);

	if (text && strlen(text) <= TEXT_BYTES_MAX && !has_control(text))
		return text;
	g_free(text);
	*why = key;
	return NULL;
}

static uint64_t get_number(GKeyFile *file, const char *key, uint64_t max, const char **why)
{
	g_autofree char *text = get_text(file, key, why);
	guint64 number = 0;

	if (text && !g_ascii_string_to_unsigned(text, 10, 0, max, &number, NULL))
		*why = key;
	return number;
}

static void get_id(GKeyFile *file, const char *key, uint8_t id[OWNER_ID_BYTES], const char **why)
{
	g_autofree char *text = get_text(file, key, why);

	if (!text || strlen(text) != 2 * OWNER_ID_BYTES || strspn(text, "0123456789abcdef") != 2 * OWNER_ID_BYTES) {
		*why = key;
		return;
	}
	for (unsigned i = 0; i < OWNER_ID_BYTES; i++)
		id[i] = (uint8_t)(g_ascii_xdigit_value(text[2 * i]) << 4 | g_ascii_xdigit_value(text[2 * i + 1]));
}

static bool get_clean(GKeyFile *file, const char **why)
{
	g_autofree char *text = get_text(file, "clean", why);

	if (text && strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
		*why = "clean";
	return text && strcmp(text, "true") == 0;
}

/* A mode that this version does not know may promise anything. */
static char *get_mode(GKeyFile *file, const char **why)
{
	static const char *const known[] = {"direct", "persistent", "writeback", "none", NULL};
	char *mode = get_text(file, "mode", why);

	if (mode && !g_strv_contains(known, mode))
		*why = "mode";
	return mode;
}

static char *get_since(GKeyFile *file, const char **why)
{
	char *since = get_text(file, "since", why);
	g_autoptr(GDateTime) when = since ? g_date_time_new_from_iso8601(since, NULL) : NULL;

	if (!when)
		*why = "since";
	return since;
}

/* False: WHY is the key that is missing or wrong, or NULL. */
static bool parse(const char *text, size_t length, struct owner_record *record, const char **why)
{
	g_autoptr(GKeyFile) file = g_key_file_new();

	*why = NULL;
	if (memchr(text, '\0', length) || !g_key_file_load_from_data(file, text, length, G_KEY_FILE_NONE, NULL) ||
	    !g_key_file_has_group(file, GROUP))
		return false;
	*record = (struct owner_record){
		.host = get_text(file, "host", why),
		.boot_id = get_text(file, "boot_id", why),
		.pid = (int64_t)get_number(file, "pid", INT32_MAX, why),
		.cache_path = get_text(file, "cache_path", why),
		.generation = get_number(file, "generation", UINT64_MAX, why),
		.mode = get_mode(file, why),
		.clean = get_clean(file, why),
		.since = get_since(file, why),
	};
	get_id(file, "mount_id", record->mount_id, why);
	get_id(file, "cache_id", record->cache_id, why);
	return !*why;
}

/* What no reader would take is not written. */
static void set_text(GKeyFile *file, const char *key, const char *text)
{
	g_autofree char *valid = g_utf8_make_valid(text ? text : "", -1);

	for (char *p = valid; *p; p++)
		if (g_ascii_iscntrl(*p))
			*p = '?';
	g_key_file_set_string(file, GROUP, key, valid);
}

static void set_id(GKeyFile *file, const char *key, const uint8_t id[OWNER_ID_BYTES])
{
	char text[2 * OWNER_ID_BYTES + 1];

	for (unsigned i = 0; i < OWNER_ID_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", id[i]);
	g_key_file_set_string(file, GROUP, key, text);
}

static char *format(const struct owner_record *record, gsize *length)
{
	g_autoptr(GKeyFile) file = g_key_file_new();

	set_text(file, "host", record->host);
	set_text(file, "boot_id", record->boot_id);
	g_key_file_set_int64(file, GROUP, "pid", record->pid);
	set_id(file, "mount_id", record->mount_id);
	set_id(file, "cache_id", record->cache_id);
	set_text(file, "cache_path", record->cache_path);
	g_key_file_set_uint64(file, GROUP, "generation", record->generation);
	set_text(file, "mode", record->mode);
	g_key_file_set_boolean(file, GROUP, "clean", record->clean);
	set_text(file, "since", record->since);
	return g_key_file_to_data(file, length, NULL);
}

/* ---- Directories ----------------------------------------------------------- */

static int make_directory(int parent, const char *name)
{
	if (mkdirat(parent, name, 0700) < 0)
		return errno == EEXIST ? 0 : -errno;
	return fsync(parent) < 0 ? -errno : 0;
}

/* A descriptor, or -errno. */
static int enter_directory(int parent, const char *name, bool make)
{
	int result = make ? make_directory(parent, name) : 0;
	int fd = result < 0 ? result : openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return result == 0 && fd < 0 ? -errno : fd;
}

static int open_owners(const char *pool, bool make)
{
	int fd = open(pool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	for (unsigned i = 0; i < G_N_ELEMENTS(directories) && fd >= 0; i++) {
		int inner = enter_directory(fd, directories[i], false);

		if (inner == -ENOENT && make)
			inner = enter_directory(fd, directories[i], true);
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
	int fd = openat(owners, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	size_t length = 0;
	ssize_t n = 1;
	struct stat st;

	if (fd < 0)
		return -errno;
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
	if (parse(text, (size_t)length, record, &why))
		return true;
	owner_record_clear(record);
	return error_set(error, EINVAL, "%s/.leafdisk/owners/%s: is no owner record: %s%s", pool, name,
			 why ? "no good value for " : "it has no group [" GROUP "]", why ? why : "");
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
	text = format(record, &length);
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

static void sweep_file(int owners, const char *name)
{
	struct stat st;

	if (g_str_has_prefix(name, TEMPORARY_PREFIX) && fstatat(owners, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    st.st_mtim.tv_sec + TEMPORARY_AGE_SECONDS < time(NULL))
		(void)unlinkat(owners, name, 0);
}

void owner_sweep(const char *pool)
{
	int owners = open_owners(pool, false);
	DIR *directory = owners < 0 ? NULL : fdopendir(owners);
	struct dirent *entry;

	if (!directory) {
		close_owners(owners);
		return;
	}
	while ((entry = readdir(directory)))
		sweep_file(owners, entry->d_name);
	closedir(directory);
}
