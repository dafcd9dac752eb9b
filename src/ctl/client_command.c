/* Commands to a running mount.
 *
 * The write that is the command takes as long as the command does, so it has a
 * thread of its own, and this one shows the progress and takes the signals. To
 * give up, the writer is sent a signal: the kernel then tells the daemon, which
 * answers with EINTR. One signal could come just before the write, so it is
 * sent again until the writer has ended. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "core/error.h"
#include "core/thread.h"
#include "core/time.h"
#include "drain_progress.h"
#include "interrupt.h"

/* To the writer, and from it at its end. */
#define SIGNAL_STOP SIGUSR1
#define SIGNAL_DONE SIGUSR2
#define WAIT_NS (200 * NS_PER_MS)

struct writer {
	enum control_entry entry;
	const char *object;
	const char *path;
	int fd;
	const char *command;
	int errnum; /* 0: done */
	pthread_t waiter;
	pthread_t thread;
};

static void ignore(int signal_number)
{
	(void)signal_number;
}

/* No SA_RESTART: the write is to end. */
static void prepare_signals(sigset_t *waited)
{
	struct sigaction action = {.sa_handler = ignore};

	sigaction(SIGNAL_STOP, &action, NULL);
	interrupt_fill_set(waited);
	sigaddset(waited, SIGNAL_DONE);
	pthread_sigmask(SIG_BLOCK, waited, NULL);
}

static void *writer_main(void *opaque)
{
	struct writer *writer = opaque;
	size_t length = strlen(writer->command);
	ssize_t written;
	sigset_t stop;

	sigemptyset(&stop);
	sigaddset(&stop, SIGNAL_STOP);
	pthread_sigmask(SIG_UNBLOCK, &stop, NULL);
	written = write(writer->fd, writer->command, length);
	if (written != (ssize_t)length)
		writer->errnum = written < 0 ? errno : EIO;
	pthread_kill(writer->waiter, SIGNAL_DONE);
	return NULL;
}

/* Of the disk that MOUNT is about, or of all. */
static uint64_t dirty_bytes(const struct mounted *mount)
{
	enum control_entry entry = control_is_disk(mount) ? CONTROL_DISK_DRAIN : CONTROL_DRAIN;
	g_autofree char *text = control_read(mount, entry, mount->name, NULL);

	return text ? g_ascii_strtoull(text, NULL, 10) : 0;
}

/* A pause waits for requests, and writes nothing back. */
static bool writes_back(const struct writer *writer)
{
	return writer->entry != CONTROL_DISK_PAUSE;
}

/* Until the writer has ended. Returns the signal that gave up; 0: none. */
static int wait_for_writer(const struct mounted *mount, const struct writer *writer, const sigset_t *waited)
{
	const struct timespec interval = {.tv_nsec = WAIT_NS};
	struct drain_progress progress;
	int found, stopped_by = 0;

	drain_progress_begin(&progress);
	while ((found = sigtimedwait(waited, NULL, &interval)) != SIGNAL_DONE) {
		if (found > 0)
			stopped_by = found;
		if (stopped_by)
			pthread_kill(writer->thread, SIGNAL_STOP);
		else if (found < 0 && progress.on_terminal && writes_back(writer))
			drain_progress_show(&progress, dirty_bytes(mount));
	}
	drain_progress_end(&progress);
	return stopped_by;
}

/* The daemon's sentence stands beside the file. NULL: there is none. g_free. */
static char *last_error(const struct mounted *mount, const struct writer *writer)
{
	bool of_disk = control_entry_directory(writer->entry) == CONTROL_DISK;
	enum control_entry entry = of_disk ? CONTROL_DISK_LAST_ERROR : CONTROL_LAST_ERROR;
	g_autofree char *text = control_read(mount, entry, writer->object, NULL);
	g_autofree char *sentence = text && *text ? g_strcompress(text) : NULL;

	return sentence ? g_strdup(g_strchomp(sentence)) : NULL;
}

static bool failed(const struct mounted *mount, const struct writer *writer, int stopped_by, GError **error)
{
	g_autofree char *sentence = last_error(mount, writer);

	if (!sentence)
		return error_set_errno(error, writer->errnum, "%s: the command failed", writer->path);
	if (!stopped_by)
		return error_set(error, writer->errnum, "%s", sentence);
	return error_set(error, EINTR, "stopped by signal %d: %s; the command can be run again", stopped_by, sentence);
}

static bool run_writer(const struct mounted *mount, struct writer *writer, GError **error)
{
	sigset_t waited;
	int result, stopped_by;

	prepare_signals(&waited);
	result = thread_spawn(&writer->thread, "leafctl-write", THREAD_OTHER, writer_main, writer);
	if (result < 0)
		return error_set_errno(error, -result, "cannot start a thread");
	stopped_by = wait_for_writer(mount, writer, &waited);
	pthread_join(writer->thread, NULL);
	return writer->errnum == 0 || failed(mount, writer, stopped_by, error);
}

/* Returns the open file, or -1 with ERROR. */
static int run_command(const struct mounted *mount, enum control_entry entry, const char *object, const char *command,
		       int flags, GError **error)
{
	g_autofree char *path = control_path(mount, entry, object);
	struct writer writer = {
		.entry = entry, .object = object, .path = path, .command = command, .waiter = pthread_self()};

	writer.fd = open(path, flags | O_CLOEXEC);
	if (writer.fd < 0) {
		error_set_errno(error, errno, "%s cannot be written", path);
		return -1;
	}
	if (run_writer(mount, &writer, error))
		return writer.fd;
	close(writer.fd);
	return -1;
}

int control_command_kept(const struct mounted *mount, enum control_entry entry, const char *object, const char *command,
			 GError **error)
{
	return run_command(mount, entry, object, command, O_RDWR, error);
}

bool control_command(const struct mounted *mount, enum control_entry entry, const char *object, const char *command,
		     GError **error)
{
	int fd = run_command(mount, entry, object, command, O_WRONLY, error);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}
