/* A mount: libfuse's session, the pool behind it and the loops that serve it.
 *
 * Order of the start: background threads, pool, channels, mount, descriptors, threads. So whatever
 * can fail fails before the mount, but for the clones of its descriptor.
 *
 * Order of the end: every channel stops receiving and answers what it has;
 * the threads end; every disk that is still open is closed, which commits it;
 * then the mount is taken down, if that was not how it began: nobody is to wait
 * at it while what is dirty is written back; and the rest is freed. A mount
 * taken down by its user, or by force, ends the same way: its descriptor says
 * ENODEV. What takes too long of it is given up (end.c). */
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "channel.h"
#include "core/error.h"
#include "core/log.h"
#include "daemon.h"
#include "directory.h"
#include "drain.h"
#include "end.h"
#include "handle.h"
#include "mountpoint.h"
#include "notify.h"
#include "ops.h"
#include "predecessor.h"
#include "rest.h"
#include "fuse/control/open_file.h"
#include "core/starter.h"
#include "core/workers.h"
#include "pool/watch.h"

/* For fusermount3, which waits for nobody. */
#define UNMOUNT_SECONDS 30

void session_stop(struct session *session)
{
	if (atomic_exchange(&session->stopping, true))
		return;
	end_begin(session->end);
	rest_tell_left(session->rest_fd, REST_UNCOUNTED);
	disk_pool_end(session->pool);
	control_files_resume(session);
	for (unsigned i = 0; i < session->options->threads; i++)
		channel_stop(session->channels[i]);
}

/* libfuse's own messages, without their line ends. */
static void log_libfuse(enum fuse_log_level level, const char *format, va_list arguments)
{
	g_autofree char *message = g_strchomp(g_strdup_vprintf(format, arguments));

	if (level <= FUSE_LOG_ERR)
		log_error("%s", message);
	else if (level == FUSE_LOG_WARNING)
		log_warning("%s", message);
	else
		log_debug(LOG_FUSE, "%s", message);
}

/* default_permissions: with others let in the kernel must hold them to the
 * modes; without, libfuse lets in the mount's owner and root only. */
static char *library_list(const struct session *session)
{
	const struct mount_options *options = session->options;
	const char *given = options->library_options ? options->library_options : "";
	char *list = NULL;

	if (!strstr(given, "fsname=")) {
		g_autofree char *name = g_strconcat("fsname=", disk_pool_path(session->pool), NULL);

		fuse_opt_add_opt_escaped(&list, name);
	}
	if (!strstr(given, "subtype="))
		fuse_opt_add_opt(&list, "subtype=leafdisk");
	if (options->read_only)
		fuse_opt_add_opt(&list, "ro");
	if (options->allow_other)
		fuse_opt_add_opt(&list, "allow_other,default_permissions");
	if (options->max_read > 0) {
		g_autofree char *limit = g_strdup_printf("max_read=%u", (unsigned)options->max_read);

		fuse_opt_add_opt(&list, limit);
	}
	if (*given)
		fuse_opt_add_opt(&list, given);
	return list;
}

static bool mount_claimed(struct session *session, GError **error)
{
	const char *mountpoint = session->options->mountpoint;
	int given = session->options->mounted_fd;
	g_autofree char *descriptor = given >= 0 ? g_strdup_printf("/dev/fd/%d", given) : NULL;
	int claim = given >= 0 ? -1 : mountpoint_claim(mountpoint, error);

	if (given < 0 && claim < 0)
		return false;
	session->mounted = fuse_session_mount(session->fuse, descriptor ? descriptor : mountpoint) == 0;
	if (claim >= 0)
		close(claim);
	return session->mounted ||
	       error_set(error, EIO, "%s could not be mounted on %s", disk_pool_path(session->pool), mountpoint);
}

static bool mount_session(struct session *session, GError **error)
{
	struct fuse_args arguments = FUSE_ARGS_INIT(0, NULL);
	char *list = library_list(session);

	fuse_opt_add_arg(&arguments, "leafdisk");
	fuse_opt_add_arg(&arguments, "-o");
	fuse_opt_add_arg(&arguments, list);
	free(list);
	session->fuse = fuse_session_new(&arguments, &session_ops, sizeof(session_ops), session);
	fuse_opt_free_args(&arguments);
	if (!session->fuse)
		return error_set(error, EINVAL, "libfuse refused the mount options");
	if (!mount_claimed(session, error))
		return false;
	if (fuse_session_custom_io(session->fuse, &channel_io, fuse_session_fd(session->fuse)) != 0)
		return error_set(error, ENOMEM, "libfuse refused our input and output");
	return true;
}

static bool open_pool(struct session *session, GError **error)
{
	const struct mount_options *options = session->options;
	struct disk_pool_options pool_options = {
		.path = options->pool_path,
		.layers = options->layers,
		.disks = options->disks,
		.read_only = options->read_only,
		.stale_reads = options->stale_reads,
		.config = options->config,
		.mode = options_mode(options),
		.cache = options->cache,
		.cache_size = options->cache_size,
		.tunables = options->tunables,
	};
	struct stat st;
	int result;

	predecessor_await(options->cache, session->end);
	session->pool = disk_pool_open(&pool_options, error);
	if (!session->pool) {
		predecessor_name_holder(options->cache, error);
		return false;
	}
	result = disk_pool_stat(session->pool, &st);
	if (result != 0)
		return error_set_errno(error, -result, "pool %s cannot be used", options->pool_path);
	disk_pool_warn(session->pool, &pool_options);
	disk_pool_watch_room(session->pool);
	session->owner = st.st_uid;
	session->group = st.st_gid;
	return true;
}

static bool make_channels(struct session *session, GError **error)
{
	session->channels = g_new0(struct channel *, session->options->threads);
	for (unsigned i = 0; i < session->options->threads; i++) {
		session->channels[i] = channel_new(session, session_stop, error);
		if (!session->channels[i])
			return false;
	}
	return true;
}

static bool attach_channels(struct session *session, GError **error)
{
	for (unsigned i = 0; i < session->options->threads; i++)
		if (!channel_attach(session->channels[i], i > 0, error))
			return false;
	return true;
}

static bool start(struct session *session, GError **error)
{
	static const struct end_actions actions = {.stop = session_stop, .cut_off = session_cut_off};

	session->end = end_new(session, &actions, error);
	return session->end && loop_start_workers(error) && open_pool(session, error) &&
	       make_channels(session, error) && mount_session(session, error) && attach_channels(session, error);
}

struct session *session_new(const struct mount_options *options, int signal_fd, GError **error)
{
	struct session *session = g_new0(struct session, 1);

	session->options = options;
	session->nodes = node_table_new();
	clock_gettime(CLOCK_REALTIME, &session->started);
	list_init(&session->handles);
	list_init(&session->directories);
	list_init(&session->control_files);
	lock_init(&session->names_lock, LOCK_RANK_NAMES);
	lock_init(&session->handles_lock, LOCK_RANK_HANDLES);
	condition_init(&session->handle_closed);
	lock_init(&session->message_lock, LOCK_RANK_MESSAGE);
	lock_init(&session->connection_lock, LOCK_RANK_CONNECTION);
	session->signal_fd = signal_fd;
	session->rest_fd = rest_new();
	fuse_set_log_func(log_libfuse);
	if (start(session, error))
		return session;
	session_free(session);
	return NULL;
}

/* A thread that does not start is one less: the kernel hands a request to
 * whoever reads, so nothing waits at a descriptor that nobody reads from. */
static void start_threads(struct session *session)
{
	for (unsigned i = 1; i < session->options->threads; i++) {
		g_autoptr(GError) error = NULL;

		if (!channel_start(session->channels[i], &error))
			log_warning("%s; the mount has fewer loops", error->message);
	}
}

/* FD goes on as one that nobody reads from: for poll(2) as /dev/fuse is when its connection has ended. */
static void make_dead(int fd)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) != 0)
		return;
	close(ends[0]);
	dup3(ends[1], fd, O_CLOEXEC);
	close(ends[1]);
}

/* By who may: not this process, where it was a user's helper or mount(8) that mounted. */
static void take_down_by_other(const struct session *session)
{
	const char *mountpoint = session->options->mountpoint;
	g_autoptr(GError) error = NULL;

	if (session->options->mounted_fd >= 0)
		log_warning("%s stays mounted, with nothing behind it, as the daemon has not the privileges to change "
			    "that (drop_privileges): umount %s",
			    mountpoint, mountpoint);
	else if (!starter_run(STARTER_UNMOUNT, mountpoint, UNMOUNT_SECONDS, &error))
		log_warning("%s cannot be unmounted: %s", mountpoint, error->message);
}

/* The connection ends before the mount is taken down: what is still to be written to it would keep that up. */
static void unmount(const struct session *session)
{
	int fd = fuse_session_fd(session->fuse);
	struct pollfd connection = {.fd = fd};
	bool over = poll(&connection, 1, 0) == 1 && connection.revents & POLLERR;
	bool others = starter_has(STARTER_UNMOUNT) || session->options->mounted_fd >= 0;

	if (!over && others) {
		make_dead(fd);
		take_down_by_other(session);
	}
	/* Does nothing when the connection has ended already. */
	fuse_session_unmount(session->fuse);
}

/* The channels' first: the connection lives as long as one of its descriptors, and
 * whoever waits on the mount is let go when it ends. */
static void end_connection(struct session *session)
{
	LOCK_GUARD(&session->connection_lock);
	for (unsigned i = 0; session->channels && i < session->options->threads; i++)
		channel_free(session->channels[i]);
	g_clear_pointer(&session->channels, g_free);
	if (session->mounted)
		unmount(session);
	session->mounted = false;
}

/* The descriptors stay taken: whoever uses one finds nothing behind it. */
void session_cut_off(struct session *session)
{
	int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);

	LOCK_GUARD(&session->connection_lock);
	for (unsigned i = 0; session->channels && i < session->options->threads; i++)
		if (session->channels[i] && session->channels[i]->fd >= 0)
			dup3(nothing, session->channels[i]->fd, O_CLOEXEC);
	if (session->mounted)
		unmount(session);
	session->mounted = false;
}

/* What a file has that was removed no other mount goes on with. */
static bool write_back(struct session *session)
{
	if (session->options->drain || disk_pool_cache_is_removed(session->pool))
		return drain_at_end(session);
	drain_is_left(session);
	return true;
}

bool session_run(struct session *session, void (*ready)(void))
{
	struct disk_pool_watch *watch;
	bool written_back;

	start_threads(session);
	end_serve(session->end);
	ready();
	log_event("%s mounted on %s", disk_pool_path(session->pool), session->options->mountpoint);
	watch = disk_pool_watch_begin(session->pool);
	channel_run(session->channels[0]);
	notify_stopping();
	for (unsigned i = 1; i < session->options->threads; i++)
		channel_join(session->channels[i]);
	handle_close_all(session);
	control_close_all(session);
	directory_close_all(session);
	end_connection(session);
	written_back = write_back(session);
	g_clear_pointer(&session->nodes, node_table_free);
	disk_pool_watch_end(watch);
	written_back &= disk_pool_stop(session->pool);
	session->over = true;
	return written_back && !atomic_load(&session->close_failed);
}

void session_free(struct session *session)
{
	if (!session)
		return;
	end_connection(session);
	if (session->fuse)
		fuse_session_destroy(session->fuse);
	node_table_free(session->nodes);
	/* The watch finds no pool that is being closed. */
	disk_pool_close(g_steal_pointer(&session->pool));
	end_free(session->end);
	if (session->over)
		log_event("the mount of %s on %s has ended", session->options->pool_path, session->options->mountpoint);
	lock_destroy(&session->names_lock);
	lock_destroy(&session->handles_lock);
	condition_destroy(&session->handle_closed);
	lock_destroy(&session->message_lock);
	lock_destroy(&session->connection_lock);
	g_free(session->last_refusal);
	if (session->rest_fd >= 0)
		close(session->rest_fd);
	g_free(session);
}
