/* The end of a mount takes no longer than it may.
 *
 * What the end waits for may have no answer: an image's store that hangs, the
 * cache. It waits as long as nobody says otherwise, and says so once, after PATIENCE_NS
 * without progress; after another signal, and with
 * `nodrain`, which is not to wait for the pool, it is given PATIENCE_NS without
 * progress. Then the process leaves as it is, whatever its threads wait for:
 *   1. the connection is ended: nobody is kept at the mount, nothing more is
 *      acknowledged;
 *   2. the cache makes durable what it can, and its lock is free;
 *   3. what stays behind is said, and the process ends with status 1.
 * A thread that the kernel does not let go keeps the process, and the images that
 * it has open, until the store answers; but neither the mount nor the cache.
 *
 * A mount that is taken down ends when nobody has it any more: that is never, while another
 * mount namespace keeps it. So the watch looks for it in the kernel's table, a moment after
 * that has changed, and says where it may live on.
 *
 * The watch is a thread of its own, which takes the signals: a loop may be in a
 * call that has no answer. It touches no store before it leaves, and then only the
 * cache. */
#include "end.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/config.h"
#include "core/error.h"
#include "core/log.h"
#include "core/loop.h"
#include "core/thread.h"
#include "core/time.h"
#include "daemon.h"
#include "mounts.h"
#include "rest.h"
#include "session.h"
#include "syscalls.h"

#define PATIENCE_NS (10 * NS_PER_S)
#define CACHE_PATIENCE_NS (5 * NS_PER_S)
/* From a change of the table of mounts to a look at it: an end has begun by then, and many
 * changes cost one look. */
#define LOOK_NS NS_PER_S

struct end {
	struct session *session;
	const struct end_actions *actions;
	pthread_t thread;
	int wake_fd;
	atomic_bool serving;
	atomic_bool begun;
	atomic_bool given_up;
	atomic_bool over;
	_Atomic uint64_t progress_ns;
	bool told; /* that it waits; the watch's */

	/* Since it serves, the watch's. */
	struct mount_entry mount;
	int mounts_fd; /* of the table; -1: it is not looked for */
	uint64_t look_ns;
};

static void wake(struct end *end)
{
	uint64_t one = 1;

	if (write(end->wake_fd, &one, sizeof(one)) < 0)
		log_warning("the end of the mount is not watched");
}

void end_serve(struct end *end)
{
	if (mounts_find(end->session->options->mountpoint, &end->mount)) {
		const struct rest rest = {.major = end->mount.major, .minor = end->mount.minor};

		rest_tell(end->session->rest_fd, &rest);
		end->mounts_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	}
	atomic_store(&end->serving, true);
	wake(end);
	if (atomic_load(&end->begun))
		end->actions->stop(end->session);
}

void end_begin(struct end *end)
{
	if (!end)
		return;
	atomic_store(&end->progress_ns, loop_now_ns());
	atomic_store(&end->begun, true);
	wake(end);
}

bool end_is_given_up(const struct end *end)
{
	return end && atomic_load(&end->given_up);
}

void end_note_progress(struct end *end)
{
	if (end)
		atomic_store(&end->progress_ns, loop_now_ns());
}

/* ---- Leaving --------------------------------------------------------------- */

static void __attribute__((noreturn)) leave(struct end *end)
{
	struct session *session = end->session;
	uint64_t left_bytes = 0;
	g_autofree char *size = NULL;
	int result;

	end->actions->cut_off(session);
	if (!session->pool) {
		log_error(
			session->over
				? "the mount of %s on %s has ended before its pool was let go: a store does not answer"
				: "%s is not mounted on %s: a store does not answer",
			session->options->pool_path, session->options->mountpoint);
		_exit(1);
	}
	result = disk_pool_leave(session->pool, CACHE_PATIENCE_NS, &left_bytes);
	size = config_format_size(left_bytes);
	log_error("the mount of %s on %s has ended before all its disks were closed: a store does not answer; "
		  "%s of changes stay in the cache%s%s",
		  session->options->pool_path, session->options->mountpoint, size,
		  result < 0 ? ", which does not take the last of them: " : "", result < 0 ? g_strerror(-result) : "");
	_exit(1);
}

/* ---- Elsewhere ------------------------------------------------------------- */

static void stop_looking(struct end *end)
{
	if (end->mounts_fd >= 0)
		close(end->mounts_fd);
	end->mounts_fd = -1;
	end->look_ns = 0;
}

/* It is taken down, and has not ended for that. */
static void look_for_mount(struct end *end)
{
	const char *mountpoint = end->session->options->mountpoint;

	end->look_ns = 0;
	if (mounts_look(end->mount.major, end->mount.minor, NULL) != ANSWER_NO) {
		log_debug(LOG_FUSE, "%s is looked for: it may be mounted still", mountpoint);
		return;
	}
	log_warning("%s is unmounted here, and lives on: another mount namespace has it, or a file of it is open; its "
		    "disks are served until that is over; grep -slw %u:%u /proc/[0-9]*/mountinfo tells who has it, and "
		    "kill -TERM %d ends it",
		    mountpoint, end->mount.major, end->mount.minor, getpid());
	stop_looking(end);
}

/* ---- The watch ------------------------------------------------------------- */

/* Nobody has said that it is to leave without the store's answer. */
static bool is_patient(const struct end *end)
{
	return end->session->options->drain && !atomic_load(&end->given_up);
}

/* When to tell, or to leave. UINT64_MAX: there is all the time in the world. */
static uint64_t deadline_of(struct end *end)
{
	if (!atomic_load(&end->begun))
		return end->look_ns ? end->look_ns : UINT64_MAX;
	if (is_patient(end) && end->told)
		return UINT64_MAX;
	return atomic_load(&end->progress_ns) + PATIENCE_NS;
}

static void tell(struct end *end)
{
	end->told = true;
	log_warning("the end of the mount %s waits for a store that does not answer; after another signal it waits for "
		    "10 s more, and what is not written back then stays in the cache",
		    end->session->options->mountpoint);
}

static int timeout_ms(uint64_t deadline, uint64_t now)
{
	if (deadline == UINT64_MAX)
		return -1;
	return deadline > now ? (int)((deadline - now) / NS_PER_MS) + 1 : 0;
}

/* The start may hang as well as the end: it is given up at once, and ends the
 * mount if it gets through after all. */
static void give_up_start(struct end *end, const char *name)
{
	log_event("signal %s: %s is not to be mounted any more", name, end->session->options->pool_path);
	end_note_progress(end);
	atomic_store(&end->given_up, true);
	atomic_store(&end->begun, true);
	if (atomic_load(&end->serving))
		end->actions->stop(end->session);
}

static void take_signal(struct end *end, const char *name)
{
	struct session *session = end->session;

	if (!atomic_load(&end->serving)) {
		give_up_start(end, name);
	} else if (!atomic_load(&end->begun)) {
		log_event("signal %s: ending the mount %s", name, session->options->mountpoint);
		end->actions->stop(session);
	} else if (!atomic_exchange(&end->given_up, true)) {
		log_event("signal %s: what is not written back yet stays in the cache", name);
		if (session->options->drain)
			end_note_progress(end);
	}
}

static void wait_for_event(struct end *end)
{
	struct pollfd fds[] = {
		{.fd = end->wake_fd, .events = POLLIN},
		{.fd = end->session->signal_fd, .events = POLLIN},
		{.fd = syscalls_fd(), .events = POLLIN},
		{.fd = atomic_load(&end->serving) && !end->look_ns ? end->mounts_fd : -1, .events = POLLPRI},
	};
	const char *name = NULL;
	uint64_t count;

	(void)poll(fds, G_N_ELEMENTS(fds), timeout_ms(deadline_of(end), loop_now_ns()));
	if (fds[0].revents && read(end->wake_fd, &count, sizeof(count)) < 0)
		log_debug(LOG_FUSE, "nothing woke the watch");
	if (fds[3].revents)
		end->look_ns = loop_now_ns() + LOOK_NS;
	if (fds[2].revents)
		syscalls_log_refused();
	if (fds[1].revents)
		name = daemon_next_signal(fds[1].fd);
	if (name)
		take_signal(end, name);
}

static void *watch_main(void *opaque)
{
	struct end *end = opaque;

	while (!atomic_load(&end->over)) {
		wait_for_event(end);
		if (atomic_load(&end->over) || loop_now_ns() < deadline_of(end))
			continue;
		if (!atomic_load(&end->begun))
			look_for_mount(end);
		else if (is_patient(end))
			tell(end);
		else
			leave(end);
	}
	return NULL;
}

struct end *end_new(struct session *session, const struct end_actions *actions, GError **error)
{
	struct end *end = g_new0(struct end, 1);
	int result;

	end->session = session;
	end->actions = actions;
	end->mounts_fd = -1;
	end->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	result = end->wake_fd < 0 ? -EMFILE : thread_spawn(&end->thread, "leafdisk-end", THREAD_OTHER, watch_main, end);
	if (result == 0)
		return end;
	error_set_errno(error, -result, "cannot start the thread that watches the end of the mount");
	if (end->wake_fd >= 0)
		close(end->wake_fd);
	g_free(end);
	return NULL;
}

void end_free(struct end *end)
{
	if (!end)
		return;
	atomic_store(&end->over, true);
	wake(end);
	pthread_join(end->thread, NULL);
	close(end->wake_fd);
	stop_looking(end);
	mount_entry_clear(&end->mount);
	g_free(end);
}
