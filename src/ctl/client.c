/* What a running mount tells in its control tree. Commands: command.c. */
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/nearest.h"

void control_status_clear(struct control_status *status)
{
	g_clear_pointer(&status->mode, g_free);
	g_clear_pointer(&status->state, g_free);
	g_clear_pointer(&status->reason, g_free);
	g_clear_pointer(&status->since, g_free);
	g_clear_pointer(&status->owner, g_free);
}

static bool refuse_dead(const char *path, GError **error)
{
	return error_set(
		error, ENOTCONN,
		"%s: the daemon that served it is gone: take the mount down (fusermount3 -u), and mount it again",
		path);
}

static bool check_tree(const struct mounted *mount, const char *path, GError **error)
{
	g_autofree char *tree = mount->top ? g_build_filename(mount->top, CONTROL_NAME, NULL) : NULL;

	if (!tree)
		return error_set(error, ENOENT, "%s: its mount is seen here in part only; name it where it is whole",
				 path);
	if (access(tree, R_OK | X_OK) == 0)
		return true;
	if (errno == EACCES)
		return error_set(error, EACCES,
				 "%s: the mount answers only the user who mounted it, and root; be one of them", path);
	return errno == ENOTCONN ? refuse_dead(path, error) : error_set_errno(error, errno, "%s cannot be read", tree);
}

char *control_path(const struct mounted *mount, enum control_entry entry, const char *object)
{
	const char *name = control_entry_name(entry);
	g_autofree char *directory = NULL;

	if (entry == CONTROL_TOP)
		return g_build_filename(mount->top, name, NULL);
	directory = control_path(mount, control_entry_directory(entry), object);
	return g_build_filename(directory, name ? name : object, NULL);
}

/* Asked of the tree: the file itself may be on a store that hangs. */
static bool check_disk(const struct mounted *mount, const char *path, GError **error)
{
	g_autofree char *directory = control_is_disk(mount) ? control_path(mount, CONTROL_DISK, mount->name) : NULL;

	if (!directory || access(directory, F_OK) == 0)
		return true;
	error_set_errno(error, errno, "%s is no disk of the mount", path);
	nearest_add_file(path, error);
	return false;
}

static void refuse_path(const char *path, GError **error)
{
	g_autofree char *point = mounted_point_of_pool(path);

	if (point)
		error_set(error, EINVAL, "%s is a pool; its mount is %s", path, point);
	else
		error_set(error, EINVAL, "%s is neither a leafdisk mount nor a file in one", path);
}

/* A disk is named by its file in the mount. */
static void refuse_missing(const char *path, int errnum, GError **error)
{
	g_autofree char *disk = mounted_disk_of_name(path);

	if (disk) {
		error_set(error, errnum, "%s is no file here; did you mean \"%s\"?", path, disk);
		return;
	}
	error_set_errno(error, errnum, "%s cannot be looked at", path);
	nearest_add_file(path, error);
}

struct mounted *control_find_mount(const char *path, GError **error)
{
	g_autoptr(mounted) mount = mounted_find(path);

	if (!mount && access(path, F_OK) != 0 && errno == ENOTCONN)
		refuse_dead(path, error);
	else if (!mount && access(path, F_OK) != 0)
		refuse_missing(path, errno, error);
	else if (!mount)
		refuse_path(path, error);
	else if (check_tree(mount, path, error) && check_disk(mount, path, error))
		return g_steal_pointer(&mount);
	return NULL;
}

struct mounted *control_find_whole(const char *path, GError **error)
{
	g_autoptr(mounted) mount = control_find_mount(path, error);

	if (!mount || !*mount->name)
		return g_steal_pointer(&mount);
	error_set(error, EINVAL, "%s is in a mount; expected the mount itself, %s", path, mount->top);
	return NULL;
}

struct mounted *control_find_disk(const char *path, GError **error)
{
	g_autoptr(mounted) mount = control_find_mount(path, error);

	if (!mount || control_is_disk(mount))
		return g_steal_pointer(&mount);
	error_set(error, EINVAL, "%s is no disk; expected a file in a mount like web1.img", path);
	return NULL;
}

struct mounted *control_find_whole_or_disk(const char *path, GError **error)
{
	g_autoptr(mounted) mount = control_find_mount(path, error);

	if (!mount || !*mount->name || control_is_disk(mount))
		return g_steal_pointer(&mount);
	error_set(error, EINVAL, "%s is no disk; expected a mount, or a file in it like web1.img", path);
	return NULL;
}

static int read_all(int fd, GString *text)
{
	char buffer[4096];
	ssize_t n;

	while ((n = read(fd, buffer, sizeof(buffer))) != 0) {
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			g_string_append_len(text, buffer, n);
	}
	return 0;
}

/* A file whose disk goes away between its finding and its reading is stale: it is
 * as gone as one that is not found. */
char *control_read(const struct mounted *mount, enum control_entry entry, const char *object, GError **error)
{
	g_autofree char *path = control_path(mount, entry, object);
	g_autoptr(GString) text = g_string_new(NULL);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int result = fd < 0 ? -errno : read_all(fd, text);

	if (fd >= 0)
		close(fd);
	if (result == 0)
		return g_string_free(g_steal_pointer(&text), FALSE);
	g_set_error(error, G_FILE_ERROR,
		    result == -ESTALE ? (int)G_FILE_ERROR_NOENT : (int)g_file_error_from_errno(-result), "%s: %s", path,
		    g_strerror(-result));
	return NULL;
}

char *control_value(const char *text, enum control_key key)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
	const char *name = control_key_name(key);
	size_t length = strlen(name);

	for (char **line = lines; *line; line++)
		if (strncmp(*line, name, length) == 0 && g_str_has_prefix(*line + length, ": "))
			return g_strcompress(*line + length + 2);
	return NULL;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static GPtrArray *list_names(const struct mounted *mount, enum control_entry entry, GError **error)
{
	g_autofree char *path = control_path(mount, entry, NULL);
	g_autoptr(GDir) directory = g_dir_open(path, 0, error);
	GPtrArray *names;
	const char *name;

	if (!directory)
		return NULL;
	names = g_ptr_array_new_with_free_func(g_free);
	while ((name = g_dir_read_name(directory)))
		g_ptr_array_add(names, g_strdup(name));
	g_ptr_array_sort(names, compare_names);
	return names;
}

GPtrArray *control_disks(const struct mounted *mount, GError **error)
{
	return list_names(mount, CONTROL_DISKS, error);
}

GPtrArray *control_tunables(const struct mounted *mount, GError **error)
{
	return list_names(mount, CONTROL_TUNABLES, error);
}

bool control_is_disk(const struct mounted *mount)
{
	return g_str_has_suffix(mount->name, ".img") && !strchr(mount->name, '/');
}

/* 0 where the daemon does not tell. */
static uint64_t number_value(const char *text, enum control_key key)
{
	g_autofree char *value = control_value(text, key);

	return value ? g_ascii_strtoull(value, NULL, 10) : 0;
}

bool control_read_status(const struct mounted *mount, const char *disk, struct control_status *status, GError **error)
{
	g_autofree char *state = control_read(mount, CONTROL_DISK_STATE, disk, error);

	if (!state)
		return false;
	status->mode = control_read(mount, CONTROL_DISK_MODE, disk, error);
	if (!status->mode)
		return false;
	g_strchomp(status->mode);
	status->state = control_value(state, CONTROL_KEY_STATE);
	status->reason = control_value(state, CONTROL_KEY_REASON);
	status->since = control_value(state, CONTROL_KEY_SINCE);
	status->dirty_bytes = number_value(state, CONTROL_KEY_DIRTY_BYTES);
	status->dirty_age_ms = number_value(state, CONTROL_KEY_DIRTY_AGE_MS);
	status->size_bytes = number_value(state, CONTROL_KEY_STATE_SIZE_BYTES);
	status->allocated_bytes = number_value(state, CONTROL_KEY_STATE_ALLOCATED_BYTES);
	status->opens = number_value(state, CONTROL_KEY_STATE_OPENS);
	status->layers = number_value(state, CONTROL_KEY_STATE_LAYERS);
	status->owner = control_value(state, CONTROL_KEY_STATE_OWNER);
	return true;
}

JsonObject *control_counters(const struct mounted *mount, GError **error)
{
	g_autofree char *text = control_read(mount, CONTROL_STATS, NULL, error);
	g_autoptr(JsonNode) root = text ? json_from_string(text, error) : NULL;

	if (root && JSON_NODE_HOLDS_OBJECT(root))
		return json_object_ref(json_node_get_object(root));
	if (root)
		error_set(error, EIO, "the mount on %s does not tell its counters as JSON", mount->top);
	return NULL;
}
