/* What a succession is, and its mark. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/fault.h"
#include "core/log.h"
#include "core/text.h"
#include "layer/claim.h"
#include "succession_mark.h"

#define GROUP "change"
/* The identity of what is removed. */
#define REMOVES "removes"
#define REVERTS "reverts"
#define FORKS "forks" /* a hidden name, and that which it is to become */
/* A command has 4 KiB of names, of which each byte may need five. */
#define MARK_BYTES_MAX (64 << 10)
/* Of a file that is being written; it is another's no more when it is that old. */
#define TEMPORARY_PREFIX ".new-"
#define TEMPORARY_AGE_SECONDS 60

void succession_clear(struct succession *succession)
{
	char **const names[] = {&succession->from,  &succession->sealed, &succession->to,  &succession->staged,
				&succession->group, &succession->disk,	 &succession->mark};

	for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
		g_clear_pointer(names[i], g_free);
	g_clear_pointer(&succession->forks, g_ptr_array_unref);
}

void succession_free(void *succession)
{
	succession_clear(succession);
	g_free(succession);
}

static void free_fork(void *data)
{
	struct succession_fork *fork = data;

	g_free(fork->to);
	g_free(fork->staged);
	g_free(fork);
}

void succession_take_fork(struct succession *succession, char *to, char *staged)
{
	struct succession_fork *fork = g_new0(struct succession_fork, 1);

	fork->to = to;
	fork->staged = staged;
	image_make_uuid(fork->uuid);
	if (!succession->forks)
		succession->forks = g_ptr_array_new_with_free_func(free_fork);
	g_ptr_array_add(succession->forks, fork);
}

int succession_open_sealed(const struct disk_pool *pool, bool make)
{
	return place_enter(pool_place(pool)->fd, SEALED_DIRECTORY, make);
}

/* ---- Writing ------------------------------------------------------------------------ */

static const char *const keys[] = {"from", "sealed", "to", "staged", "group"};

/* In the order of KEYS. */
static char **field_of(struct succession *succession, unsigned key)
{
	char **const fields[] = {&succession->from, &succession->sealed, &succession->to, &succession->staged,
				 &succession->group};

	return fields[key];
}

static int open_changes(const struct disk_pool *pool, bool make)
{
	int top = place_enter(pool_place(pool)->fd, ".leafdisk", make), fd;

	if (top < 0)
		return top;
	fd = place_enter(top, "changes", make);
	close(top);
	return fd;
}

/* A name may have bytes that are no text, which a key file would not give back. */
static void set_name(GKeyFile *file, const char *group, const char *key, const char *name)
{
	g_autofree char *escaped = g_strescape(name, NULL);

	g_key_file_set_string(file, group, key, escaped);
}

/* NULL: there is none. g_free. */
static char *get_name(GKeyFile *file, const char *group, const char *key)
{
	g_autofree char *escaped = g_key_file_get_string(file, group, key, NULL);

	return escaped ? g_strcompress(escaped) : NULL;
}

static char *text_of(struct succession *succession)
{
	g_autoptr(GKeyFile) file = g_key_file_new();
	char uuid[2 * IMAGE_UUID_BYTES + 1], identity[2 * CACHE_ID_BYTES + 1];

	for (unsigned key = 0; key < G_N_ELEMENTS(keys); key++)
		set_name(file, GROUP, keys[key], *field_of(succession, key));
	text_format_hex(uuid, succession->uuid, IMAGE_UUID_BYTES);
	g_key_file_set_string(file, GROUP, "uuid", uuid);
	g_key_file_set_integer(file, GROUP, "parts", (int)succession->parts);
	g_key_file_set_boolean(file, GROUP, "beside", succession->beside);
	text_format_hex(identity, succession->identity, CACHE_ID_BYTES);
	if (succession->removes || succession->reverts)
		g_key_file_set_string(file, GROUP, succession->removes ? REMOVES : REVERTS, identity);
	for (guint i = 0; succession->forks && i < succession->forks->len; i++) {
		const struct succession_fork *fork = succession->forks->pdata[i];

		set_name(file, FORKS, fork->staged, fork->to);
	}
	return g_key_file_to_data(file, NULL, NULL);
}

static bool parse_id(const char *text, uint8_t *id, size_t bytes)
{
	return text && strlen(text) == 2 * bytes && text_parse_hex(text, id, bytes);
}

/* A name right in the pool, or for SEALED in the directory of those. */
static bool is_name(const char *text, bool sealed)
{
	const char *name = text && sealed && g_str_has_prefix(text, SEALED_DIRECTORY "/")
				   ? text + strlen(SEALED_DIRECTORY "/")
				   : text;

	return name && *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
	       (!sealed || name != text);
}

static bool parse_forks(GKeyFile *file, struct succession *succession)
{
	g_auto(GStrv) staged = g_key_file_get_keys(file, FORKS, NULL, NULL);
	bool good = true;

	for (char **name = staged; name && *name && good; name++) {
		char *to = get_name(file, FORKS, *name);

		good = is_name(to, false) && is_name(*name, false) && **name == '.';
		succession_take_fork(succession, to, g_strdup(*name));
	}
	return good;
}

/* Anybody who can write to the pool may have written it. */
static bool parse(const char *text, struct succession *succession)
{
	g_autoptr(GKeyFile) file = g_key_file_new();
	g_autofree char *uuid = NULL, *removes = NULL, *reverts = NULL;

	*succession = (struct succession){0};
	if (!g_key_file_load_from_data(file, text, strlen(text), G_KEY_FILE_NONE, NULL))
		return false;
	for (unsigned key = 0; key < G_N_ELEMENTS(keys); key++)
		*field_of(succession, key) = get_name(file, GROUP, keys[key]);
	uuid = g_key_file_get_string(file, GROUP, "uuid", NULL);
	succession->parts = (unsigned)g_key_file_get_integer(file, GROUP, "parts", NULL);
	succession->beside = g_key_file_get_boolean(file, GROUP, "beside", NULL);
	removes = g_key_file_get_string(file, GROUP, REMOVES, NULL);
	reverts = g_key_file_get_string(file, GROUP, REVERTS, NULL);
	succession->removes = removes;
	succession->reverts = reverts;
	return succession->group && is_name(succession->from, false) && is_name(succession->to, false) &&
	       is_name(succession->staged, false) && succession->staged[0] == '.' &&
	       is_name(succession->sealed, true) && parse_id(uuid, succession->uuid, IMAGE_UUID_BYTES) &&
	       (!(removes || reverts) || parse_id(removes ? removes : reverts, succession->identity, CACHE_ID_BYTES)) &&
	       parse_forks(file, succession);
}

static int write_file(int directory, const char *name, const char *text)
{
	size_t length = strlen(text);
	int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600), result = 0;

	if (fd < 0)
		return -errno;
	errno = EIO;
	if (write(fd, text, length) != (ssize_t)length || fsync(fd) < 0)
		result = -errno;
	close(fd);
	return result;
}

/* Whole under its name, or not there. */
static int put_mark(int directory, const char *name, const char *text)
{
	g_autofree char *temporary = g_strconcat(TEMPORARY_PREFIX, name, NULL);
	int result = write_file(directory, temporary, text);

	if (result == 0 && renameat(directory, temporary, directory, name) < 0)
		result = -errno;
	if (result < 0)
		(void)unlinkat(directory, temporary, 0);
	if (result == 0 && fsync(directory) < 0) {
		result = -errno;
		(void)unlinkat(directory, name, 0);
	}
	return result;
}

bool succession_write_mark(struct disk_pool *pool, struct succession *succession, GError **error)
{
	const char *path = pool_place(pool)->path;
	g_autofree char *text = text_of(succession), *name = g_uuid_string_random();
	int fd = open_changes(pool, true);
	int result = fd < 0 ? fd : fault_hit("snapshot.mark", succession->from);

	if (result == 0)
		result = strlen(text) > MARK_BYTES_MAX ? -E2BIG : put_mark(fd, name, text);
	if (fd >= 0)
		close(fd);
	if (result < 0)
		return error_set_errno(error, -result, "%s/.leafdisk/changes: a mark cannot be written", path);
	succession->mark = g_strdup_printf("%s/.leafdisk/changes/%s", path, name);
	return true;
}

void succession_remove_mark(struct succession *succession)
{
	claim_remove_mark(succession->mark);
	g_clear_pointer(&succession->mark, g_free);
}

/* ---- Reading ------------------------------------------------------------------------ */

static void add_to_group(GHashTable *groups, struct succession *succession)
{
	GPtrArray *group = g_hash_table_lookup(groups, succession->group);

	if (!group) {
		group = g_ptr_array_new_with_free_func(succession_free);
		g_hash_table_insert(groups, g_strdup(succession->group), group);
	}
	g_ptr_array_add(group, succession);
}

/* The length of what TEXT gets, or -errno; -ENOENT: it is no file, or too long for a mark. */
static ssize_t read_text(int directory, const char *name, char text[static MARK_BYTES_MAX + 1])
{
	int fault = fault_hit("snapshot.marks", name),
	    fd = fault ? -1 : openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	ssize_t length = -ENOENT;
	struct stat st;

	if (fd < 0)
		return fault ? fault : errno == ELOOP ? -ENOENT : -errno;
	if (fstat(fd, &st) < 0)
		length = -errno;
	else if (S_ISREG(st.st_mode) && st.st_size <= MARK_BYTES_MAX && (length = read(fd, text, MARK_BYTES_MAX)) < 0)
		length = -errno;
	close(fd);
	return length;
}

/* False and ERROR: it cannot be read. What is no mark is none. */
static bool read_mark(struct disk_pool *pool, int directory, const char *name, GHashTable *groups, GError **error)
{
	g_autofree char *path = g_strdup_printf("%s/.leafdisk/changes/%s", pool_place(pool)->path, name);
	g_autofree char *text = g_malloc(MARK_BYTES_MAX + 1);
	ssize_t length = read_text(directory, name, text);
	struct succession *succession;

	if (length < 0)
		return length == -ENOENT || error_set_errno(error, (int)-length, "%s: cannot be read", path);
	text[length] = 0;
	succession = g_new0(struct succession, 1);
	if (parse(text, succession)) {
		succession->mark = g_steal_pointer(&path);
		add_to_group(groups, succession);
		return true;
	}
	log_warning_limited(path, "mark", "%s: says nothing that is understood", path);
	succession_free(succession);
	return true;
}

static bool read_all(struct disk_pool *pool, DIR *directory, GHashTable *groups, GError **error)
{
	struct dirent *entry;

	while ((errno = 0, entry = readdir(directory)))
		if (entry->d_name[0] != '.' && !read_mark(pool, dirfd(directory), entry->d_name, groups, error))
			return false;
	return errno == 0 ||
	       error_set_errno(error, errno, "%s/.leafdisk/changes: cannot be read", pool_place(pool)->path);
}

GHashTable *succession_read_marks(struct disk_pool *pool, GError **error)
{
	g_autoptr(GHashTable) groups =
		g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_ptr_array_unref);
	int fd = open_changes(pool, false);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	bool good = fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP;

	if (directory)
		place_sweep(fd, TEMPORARY_PREFIX, TEMPORARY_AGE_SECONDS);
	if (directory)
		good = read_all(pool, directory, groups, error);
	else if (!good)
		error_set_errno(error, fd < 0 ? -fd : errno, "%s/.leafdisk/changes: cannot be read",
				pool_place(pool)->path);
	if (directory)
		closedir(directory);
	else if (fd >= 0)
		close(fd);
	return good ? g_steal_pointer(&groups) : NULL;
}
