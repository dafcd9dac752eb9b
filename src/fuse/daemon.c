/* The process: into the background, its signals, its place in the system.
 *
 * The child inherits standard error and writes its own errors there, so all
 * that the parent has to learn is one byte: ready. When the pipe ends without
 * it the child has failed, and its exit status becomes the parent's. */
#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"
#include "core/log.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

/* Low enough that a guest or a build is killed first, and not immune. */
#define OOM_SCORE_ADJUST "-500"

static int ready_fd = -1;

static int wait_status(pid_t child)
{
	int status = 0;

	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status))
		return WEXITSTATUS(status) ? WEXITSTATUS(status) : 1;
	log_error("the daemon was killed by signal %d before the mount was ready", WTERMSIG(status));
	return 1;
}

static void __attribute__((noreturn)) wait_until_ready(pid_t child, int fd)
{
	ssize_t got;
	char byte;

	do
		got = read(fd, &byte, 1);
	while (got < 0 && errno == EINTR);
	_exit(got == 1 ? 0 : wait_status(child));
}

/* What the caller left open (a lock, a pipe that somebody reads to its end) is not to live
 * as long as the mount. */
static void close_all_but(int kept)
{
	if (kept > 3)
		close_range(3, (unsigned)kept - 1, 0);
	close_range(kept > 2 ? (unsigned)kept + 1 : 3, ~0U, 0);
}

bool daemon_start(int kept, GError **error)
{
	int fds[2];
	pid_t child;

	close_all_but(kept);
	if (pipe2(fds, O_CLOEXEC) != 0)
		return error_set_errno(error, errno, "cannot create a pipe");
	child = fork();
	if (child < 0)
		return error_set_errno(error, errno, "cannot start a background process");
	if (child > 0) {
		close(fds[1]);
		wait_until_ready(child, fds[0]);
	}
	close(fds[0]);
	ready_fd = fds[1];
	return true;
}

static void close_standard_files(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	for (int standard = 0; standard <= 2; standard++)
		dup2(fd, standard);
	if (fd > 2)
		close(fd);
}

/* An automounter lets only its own process group through to the mountpoint: the child
 * leaves it when the mount is there. */
void daemon_ready(void)
{
	setsid();
	if (chdir("/") != 0)
		log_warning("cannot change to the directory /: %s", g_strerror(errno));
	log_use_syslog();
	close_standard_files();
	while (write(ready_fd, "", 1) < 0 && errno == EINTR)
		;
	close(ready_fd);
	ready_fd = -1;
}

static void lower_oom_score(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, OOM_SCORE_ADJUST, sizeof(OOM_SCORE_ADJUST) - 1) < 0)
		log_debug(LOG_FUSE, "the OOM score stays: %s", g_strerror(errno));
	close(fd);
}

/* Both need privileges. Without the first, memory reclaim inside the daemon
 * could wait for a write to a disk that the daemon itself has to serve. */
void daemon_protect(void)
{
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0)
		log_debug(LOG_FUSE, "not marked as an I/O flusher: %s", g_strerror(errno));
	lower_oom_score();
}

int daemon_signal_fd(GError **error)
{
	sigset_t set;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		error_set_errno(error, errno, "cannot create a signal descriptor");
	return fd;
}

const char *daemon_next_signal(int fd)
{
	struct signalfd_siginfo info;

	if (read(fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return NULL;
	return sigabbrev_np((int)info.ssi_signo);
}
