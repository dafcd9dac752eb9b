/* What must hold before anything is mounted.
 *
 * The mountpoint may hold a mount whose server is gone or hangs. So its path
 * is resolved in two steps, the directory above it first, and what is mounted there
 * is settled before it is touched.
 *
 * Neither may the pool lie below the mountpoint: the daemon would look for its
 * images through its own mount and wait for itself.
 *
 * A directory of layers= may be on a store that does not answer, where a process of its
 * own is sent ahead: one that cannot be ended there is left to itself. */
#include "checks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"
#include "core/nearest.h"
#include "mountpoint.h"

/* For a store that is being mounted. */
#define LAYERS_PATIENCE_MS (10 * 1000)

static bool resolve_directory(const char *what, char **path, GError **error)
{
	char *resolved = realpath(*path, NULL);
	struct stat st;

	if (!resolved) {
		error_set_errno(error, errno, "%s %s cannot be used", what, *path);
		nearest_add_file(*path, error);
		return false;
	}
	g_free(*path);
	*path = g_strdup(resolved);
	free(resolved);
	if (stat(*path, &st) != 0)
		return error_set_errno(error, errno, "%s %s cannot be used", what, *path);
	if (!S_ISDIR(st.st_mode))
		return error_set(error, ENOTDIR, "%s %s is not a directory", what, *path);
	return true;
}

static bool check_pool(struct mount_options *options, GError **error)
{
	if (!resolve_directory("pool", &options->pool_path, error))
		return false;
	if (access(options->pool_path, R_OK | X_OK) != 0)
		return error_set_errno(error, errno, "pool %s cannot be read", options->pool_path);
	return true;
}

/* Not by what the kernel remembers of it. Nothing of the caller's is held open for as long. */
static void __attribute__((noreturn)) go_ahead(const char *path)
{
	struct statx stx;

	close_range(0, ~0U, 0);
	_exit(statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &stx) < 0 ||
	      open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) < 0);
}

/* Where no process is to be had, the store is waited for. */
static bool answers(const char *path)
{
	pid_t child = fork();
	struct pollfd ended = {.events = POLLIN};
	bool good;

	if (child == 0)
		go_ahead(path);
	ended.fd = child < 0 ? -1 : pidfd_open(child, 0);
	good = ended.fd < 0 || poll(&ended, 1, LAYERS_PATIENCE_MS) != 0;
	if (ended.fd >= 0)
		close(ended.fd);
	if (child > 0 && !good)
		kill(child, SIGKILL);
	if (child > 0)
		(void)waitpid(child, NULL, good ? 0 : WNOHANG);
	return good;
}

static bool resolve_layers(char **path, GError **error)
{
	if (!answers(*path))
		return error_set(error, ETIMEDOUT,
				 "layers directory %s does not answer; mount when it does, or without it", *path);
	return resolve_directory("layers directory", path, error);
}

static bool check_layers(struct mount_options *options, GError **error)
{
	g_auto(GStrv) directories = NULL;

	if (!options->layers)
		return true;
	directories = g_strsplit(options->layers, ":", -1);
	for (char **directory = directories; *directory; directory++)
		if (!resolve_layers(directory, error))
			return false;
	g_free(options->layers);
	options->layers = g_strjoinv(":", directories);
	return true;
}

/* The file need not exist yet; its directory must. */
static bool check_cache(struct mount_options *options, GError **error)
{
	g_autofree char *directory = NULL, *name = NULL;
	char *path;

	if (!options->cache)
		return true;
	directory = g_path_get_dirname(options->cache);
	name = g_path_get_basename(options->cache);
	path = realpath(directory, NULL);
	if (!path)
		return error_set_errno(error, errno, "cache %s cannot be used: %s", options->cache, directory);
	g_free(options->cache);
	options->cache = g_build_filename(path, name, NULL);
	free(path);
	return true;
}

/* PATH with the links above its last part resolved. */
static char *resolve_parent(const char *path)
{
	g_autofree char *name = g_path_get_basename(path);
	g_autofree char *parent = g_path_get_dirname(path);
	char *resolved = realpath(parent, NULL);
	char *joined = resolved ? g_build_filename(resolved, name, NULL) : NULL;

	free(resolved);
	return joined;
}

static bool check_mountpoint(struct mount_options *options, GError **error)
{
	g_autofree char *path = resolve_parent(options->mountpoint);

	if (options->mounted_fd >= 0)
		return true;
	if (path && !mountpoint_settle(path, error))
		return false;
	return resolve_directory("mountpoint", &options->mountpoint, error) &&
	       mountpoint_settle(options->mountpoint, error);
}

static bool is_inside(const char *path, const char *directory)
{
	size_t length = strlen(directory);

	if (strcmp(directory, "/") == 0)
		return true;
	return strncmp(path, directory, length) == 0 && (path[length] == '\0' || path[length] == '/');
}

static bool check_apart(const struct mount_options *options, GError **error)
{
	g_auto(GStrv) directories = g_strsplit(options->layers ? options->layers : "", ":", -1);

	if (is_inside(options->mountpoint, options->pool_path))
		return error_set(error, EINVAL, "mountpoint %s is inside the pool %s; choose a directory outside of it",
				 options->mountpoint, options->pool_path);
	if (is_inside(options->pool_path, options->mountpoint))
		return error_set(error, EINVAL,
				 "mountpoint %s would hide the pool %s inside it; choose another directory",
				 options->mountpoint, options->pool_path);
	for (char **directory = directories; *directory; directory++)
		if (is_inside(*directory, options->mountpoint))
			return error_set(error, EINVAL, "mountpoint %s would hide the layers in %s",
					 options->mountpoint, *directory);
	return true;
}

static bool check_content(const struct mount_options *options, GError **error)
{
	return options->mounted_fd >= 0 || mountpoint_look_into(options->mountpoint, error);
}

/* Before the pool's path is resolved: nobody would answer if that led through the mount. */
static bool refuse_pool_inside(const struct mount_options *options, GError **error)
{
	g_autofree char *pool = g_canonicalize_filename(options->pool_path, NULL);

	return !is_inside(pool, options->mountpoint) ||
	       error_set(error, EINVAL, "mountpoint %s would hide the pool %s inside it; choose another directory",
			 options->mountpoint, pool);
}

/* mount(8) has mounted with the options that it was given, and these alone are the kernel's. */
static bool check_descriptor(struct mount_options *options, GError **error)
{
	g_autofree char *path = NULL;
	int fd;

	if (!mountpoint_is_descriptor(options->mountpoint, &fd))
		return true;
	if (fcntl(fd, F_GETFD) < 0)
		return error_set_errno(error, errno, "mountpoint %s is no descriptor of /dev/fuse",
				       options->mountpoint);
	if (options->allow_other &&
	    !strstr(options->library_options ? options->library_options : "", "default_permissions"))
		return error_set(error, EINVAL,
				 "option \"allow_other\" needs \"default_permissions\" beside it in a mount with "
				 "drop_privileges: nobody would hold others to the modes");
	options->mounted_fd = fd;
	path = mountpoint_of_descriptor(fd);
	if (!path)
		return true;
	g_free(options->mountpoint);
	options->mountpoint = g_steal_pointer(&path);
	return refuse_pool_inside(options, error);
}

bool checks_run(struct mount_options *options, GError **error)
{
	return check_descriptor(options, error) && check_pool(options, error) && check_layers(options, error) &&
	       check_cache(options, error) && check_mountpoint(options, error) && check_apart(options, error) &&
	       check_content(options, error);
}
