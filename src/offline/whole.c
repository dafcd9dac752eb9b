/* New files that have their name once they are whole.
 *
 * Whoever makes one holds a lock on the directory, with others; who has it alone knows that no hidden
 * file is being made. Where a lock does not reach other hosts nobody can know, and what was left stays. */
#include "whole.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "aio/file.h"
#include "awaited.h"
#include "core/error.h"
#include "core/place.h"
#include "offline/offline.h"

/* ".01234567-" */
#define DIGITS 8
#define PREFIX_LENGTH (DIGITS + 2)
#define HIDDEN_NAME_MAX (NAME_MAX - PREFIX_LENGTH)

/* With its ending. */
static const char *end_of(const char *name)
{
	size_t length = strlen(name);

	return name + length - MIN(length, HIDDEN_NAME_MAX);
}

static bool is_hidden(const char *name)
{
	return name[0] == '.' && strspn(name + 1, "0123456789abcdef") == DIGITS && name[PREFIX_LENGTH - 1] == '-';
}

/* ---- What was left ------------------------------------------------------------ */

static bool nobody_is_at_work(int directory)
{
	return aio_fd_lock_reaches(directory) == ANSWER_YES && flock(directory, LOCK_EX | LOCK_NB) == 0;
}

/* END NULL: of any name. What a mount makes for a snapshot it is at work on without a lock, and says so in a mark. */
static GPtrArray *find_left(int directory, const char *end)
{
	GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
	int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!list && fd >= 0)
		close(fd);
	while (list && (entry = readdir(list)))
		if (is_hidden(entry->d_name) && (!end || strcmp(entry->d_name + PREFIX_LENGTH, end) == 0))
			g_ptr_array_add(names, g_strdup(entry->d_name));
	if (list)
		closedir(list);
	awaited_leave_out(directory, names);
	return names;
}

GPtrArray *offline_left(const char *directory)
{
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	GPtrArray *left = NULL;

	if (fd >= 0 && nobody_is_at_work(fd))
		left = find_left(fd, NULL);
	if (fd >= 0)
		close(fd);
	return left ? left : g_ptr_array_new();
}

static void remove_left(int directory, const char *end)
{
	g_autoptr(GPtrArray) left = find_left(directory, end);

	for (guint i = 0; i < left->len; i++)
		(void)unlinkat(directory, left->pdata[i], 0);
}

/* ---- Begin ---------------------------------------------------------------------- */

static void join_those_at_work(int directory, const char *end)
{
	if (nobody_is_at_work(directory))
		remove_left(directory, end);
	(void)flock(directory, LOCK_SH);
}

static void clear(struct whole *whole)
{
	if (whole->directory >= 0)
		close(whole->directory);
	whole->directory = -1;
	g_clear_pointer(&whole->path, g_free);
	g_clear_pointer(&whole->hidden, g_free);
}

bool whole_begin_beside(struct whole *whole, const char *path, GError **error)
{
	g_autofree char *parent = g_path_get_dirname(path), *name = g_path_get_basename(path), *hidden = NULL;

	*whole = (struct whole){.directory = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
	if (whole->directory < 0)
		return error_set_errno(error, errno, "%s: cannot be created", path);
	hidden = g_strdup_printf(".%08x-%s", g_random_int(), end_of(name));
	whole->path = g_strdup(path);
	whole->hidden = g_build_filename(parent, hidden, NULL);
	join_those_at_work(whole->directory, end_of(name));
	return true;
}

bool whole_begin(struct whole *whole, const char *path, GError **error)
{
	struct stat st;

	if (stat(path, &st) == 0 && S_ISBLK(st.st_mode)) {
		*whole = (struct whole){
			.path = g_strdup(path), .hidden = g_strdup(path), .device = true, .directory = -1};
		return true;
	}
	if (lstat(path, &st) == 0)
		return error_set_errno(error, EEXIST, "%s: cannot be created", path);
	return whole_begin_beside(whole, path, error);
}

/* ---- End ------------------------------------------------------------------------ */

static const char *name_in(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static void remove_hidden(const struct whole *whole)
{
	if (!whole->device)
		(void)unlinkat(whole->directory, name_in(whole->hidden), 0);
}

/* Whoever asked for it knows its own name only. */
static void say_without(const struct whole *whole, GError *error)
{
	g_autofree char *prefix = g_strndup(name_in(whole->hidden), PREFIX_LENGTH);
	GString *message;

	if (!error || whole->device)
		return;
	message = g_string_new(error->message);
	g_string_replace(message, prefix, "", 0);
	g_free(error->message);
	error->message = g_string_free(message, FALSE);
}

static bool give_name(struct whole *whole, const char *const *paths, GError **error)
{
	const char *path = *paths;
	int result = -EEXIST;

	for (; *paths && result == -EEXIST; paths++) {
		path = *paths;
		result = place_rename_new(whole->directory, name_in(whole->hidden), name_in(path));
	}
	if (result < 0)
		return error_set_errno(error, -result, "%s: cannot be created", path);
	return fsync(whole->directory) == 0 ||
	       error_set_errno(error, errno, "%s: is there, but its directory cannot be flushed", path);
}

bool whole_end(struct whole *whole, bool good, GError **error)
{
	const char *const paths[] = {whole->path, NULL};

	if (good)
		return whole_end_as(whole, paths, error);
	remove_hidden(whole);
	say_without(whole, error ? *error : NULL);
	clear(whole);
	return false;
}

bool whole_end_as(struct whole *whole, const char *const *paths, GError **error)
{
	bool good = whole->device || give_name(whole, paths, error);

	if (!good)
		remove_hidden(whole);
	clear(whole);
	return good;
}
