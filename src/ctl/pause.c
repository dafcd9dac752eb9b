/* leafctl pause and resume: a disk's requests are held back.
 *
 * The pause is held by the open control file, so it ends with this process, however that ends.
 * It ends before that when it is resumed by another, or with the mount: the file, which says
 * nothing then or cannot be read, is looked at now and then.
 *
 * A command that is run meanwhile may itself wait for the disk, and then does not take a signal
 * before that goes on. So a signal ends the pause first, and then is the command's. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"
#include "core/error.h"
#include "core/process.h"
#include "interrupt.h"
#include "report.h"
#include "verbs.h"

/* As shells say it. */
#define STATUS_NOT_RUN 126
#define STATUS_NOT_FOUND 127
#define STATUS_SIGNAL 128

#define LOOK_MS 200

enum { FD_SIGNALS, FD_CHILD, FDS };
enum ended { ENDED_NOT, ENDED_RESUMED, ENDED_WITH_MOUNT };

struct holding {
	const struct mounted *mount;
	int fd;			/* that holds it; -1: it has been let go */
	struct pollfd fds[FDS]; /* -1: none */
	pid_t child;		/* 0: none */
	enum ended ended;	/* by another */
};

/* ---- Its end ------------------------------------------------------------------- */

static void let_go(struct holding *holding)
{
	if (holding->fd >= 0)
		close(holding->fd);
	holding->fd = -1;
}

static void look(struct holding *holding)
{
	char byte;
	ssize_t said = holding->fd < 0 ? 1 : pread(holding->fd, &byte, 1, 0);

	if (said == 1)
		return;
	holding->ended = said == 0 ? ENDED_RESUMED : ENDED_WITH_MOUNT;
	let_go(holding);
}

/* The terminal's signals the command gets from it. */
static void take_signal(struct holding *holding)
{
	struct signalfd_siginfo info;

	let_go(holding);
	if (read(holding->fds[FD_SIGNALS].fd, &info, sizeof(info)) != sizeof(info) || !holding->child)
		return;
	if (info.ssi_code != SI_KERNEL)
		kill(holding->child, (int)info.ssi_signo);
}

static const char *why_ended(const struct holding *holding)
{
	return holding->ended == ENDED_RESUMED ? "it was resumed by another" : "its mount has ended";
}

/* Until there is nothing more to hold the pause for. Whether it was held to the end is looked at
 * last. */
static void hold(struct holding *holding)
{
	struct pollfd *fds = holding->fds;
	int found = 0;

	while (fds[FD_CHILD].fd >= 0 ? !fds[FD_CHILD].revents : holding->fd >= 0) {
		found = poll(fds, FDS, holding->fd >= 0 ? LOOK_MS : -1);
		look(holding);
		if (found > 0 && fds[FD_SIGNALS].revents)
			take_signal(holding);
	}
}

static void close_all(struct holding *holding)
{
	let_go(holding);
	for (unsigned i = 0; i < FDS; i++)
		if (holding->fds[i].fd >= 0)
			close(holding->fds[i].fd);
}

/* ---- With a command -------------------------------------------------------------- */

/* As a program of the caller's that was not run by this one. */
static void __attribute__((noreturn)) run_child(char **words, const sigset_t *mask)
{
	process_restore();
	pthread_sigmask(SIG_SETMASK, mask, NULL);
	execvp(words[0], words);
	ctl_fail("%s cannot be run: %s", words[0], g_strerror(errno));
	_exit(errno == ENOENT ? STATUS_NOT_FOUND : STATUS_NOT_RUN);
}

static bool start_child(struct holding *holding, char **words, const sigset_t *mask, GError **error)
{
	fflush(NULL);
	holding->child = fork();
	if (holding->child == 0)
		run_child(words, mask);
	if (holding->child > 0)
		holding->fds[FD_CHILD].fd = pidfd_open(holding->child, 0);
	return holding->fds[FD_CHILD].fd >= 0 || error_set_errno(error, errno, "%s cannot be run", words[0]);
}

static int status_of(const struct holding *holding, const char *command)
{
	int status = 0;

	while (waitpid(holding->child, &status, 0) < 0 && errno == EINTR)
		;
	status = WIFSIGNALED(status) ? STATUS_SIGNAL + WTERMSIG(status) : WEXITSTATUS(status);
	if (!holding->ended)
		return status;
	ctl_fail("%s was not paused until %s had ended: %s", holding->mount->name, command, why_ended(holding));
	return status ? status : CTL_FAILED;
}

static int hold_for_command(struct holding *holding, char **words, const sigset_t *mask)
{
	g_autoptr(GError) error = NULL;

	if (!start_child(holding, words, mask, &error))
		return ctl_fail_error(NULL, error);
	hold(holding);
	let_go(holding);
	return status_of(holding, words[0]);
}

/* ---- Without ----------------------------------------------------------------------- */

static int hold_until_told(struct holding *holding, const char *path)
{
	g_autofree char *name = ctl_printable(holding->mount->name), *word = g_shell_quote(path);
	g_autofree char *typed = ctl_printable(word);

	printf("%s is paused until this is interrupted, or: leafctl resume %s\n", name, typed);
	fflush(stdout);
	hold(holding);
	if (holding->ended == ENDED_WITH_MOUNT)
		return ctl_fail("%s is no longer paused: %s", holding->mount->name, why_ended(holding));
	return CTL_DONE;
}

/* ---- The verbs --------------------------------------------------------------------- */

static bool begin(struct holding *holding, GError **error)
{
	sigset_t signals;

	for (unsigned i = 0; i < FDS; i++)
		holding->fds[i] = (struct pollfd){.fd = -1, .events = POLLIN};
	interrupt_fill_set(&signals);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	holding->fds[FD_SIGNALS].fd = signalfd(-1, &signals, SFD_CLOEXEC);
	if (holding->fds[FD_SIGNALS].fd < 0)
		return error_set_errno(error, errno, "signals cannot be waited for");
	holding->fd = control_command_kept(holding->mount, CONTROL_DISK_PAUSE, holding->mount->name,
					   control_word_text(CONTROL_WORD_PAUSE), error);
	return holding->fd >= 0;
}

static int pause_and_hold(const struct mounted *mount, const char *path, char **words)
{
	g_autoptr(GError) error = NULL;
	struct holding holding = {.mount = mount, .fd = -1};
	sigset_t before;
	int status;

	pthread_sigmask(SIG_SETMASK, NULL, &before);
	if (!begin(&holding, &error))
		status = ctl_fail_error(NULL, error);
	else if (*words)
		status = hold_for_command(&holding, words, &before);
	else
		status = hold_until_told(&holding, path);
	close_all(&holding);
	return status;
}

int ctl_pause(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	const char *path = arguments->names[0];
	char **words = (char **)arguments->names + 1;
	g_autoptr(mounted) mount = control_find_disk(path, &error);
	g_autofree char *found = *words ? g_find_program_in_path(*words) : NULL;

	if (!mount)
		return ctl_fail_error(NULL, error);
	if (*words && !found) {
		ctl_fail("%s is no program that can be run; %s is not paused", *words, mount->name);
		return STATUS_NOT_FOUND;
	}
	return pause_and_hold(mount, path, words);
}

int ctl_resume(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(mounted) mount = control_find_disk(arguments->names[0], &error);

	if (!mount ||
	    !control_command(mount, CONTROL_DISK_PAUSE, mount->name, control_word_text(CONTROL_WORD_RESUME), &error))
		return ctl_fail_error(NULL, error);
	return CTL_DONE;
}
