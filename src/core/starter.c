/* A process beside this one that starts programs for it.
 *
 * What serves a mount reads what others wrote, and may start no program. Whoever took it
 * over could have the starter run what the local configuration names, and nothing else.
 *
 * A request is one datagram: which program, for how long, the argument, and the end of a
 * pipe for the answer. For each the starter forks a runner, which starts the program in a
 * process group of its own, waits for it, kills that group at the limit, and answers with
 * a byte and a sentence. A pipe that ends without them had a runner that was killed. The
 * starter ends when its socket does, so with the process that it is for; a program that
 * runs then is not ended with it. */
#include "core/starter.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"
#include "core/thread.h"

#define ARGUMENT_BYTES 4096
#define SENTENCE_BYTES 256
#define ARGUMENTS_MAX 256
/* For a group that was killed. */
#define KILL_SECONDS 5
/* In the starter: the number of its socket. */
#define SOCKET_FD 3

enum answer_byte { ANSWER_DONE = '0', ANSWER_FAILED = '1' };

struct order {
	uint32_t program;
	uint32_t seconds;
	char argument[ARGUMENT_BYTES]; /* as long as the datagram; ends with a zero */
};

extern char **environ;

static int starter_fd = -1; /* this process's end */
static pid_t starter_pid;
static bool has[STARTER_PROGRAMS];

/* ---- The runner -------------------------------------------------------------- */

static int spawn(char *const *argv, pid_t *pid)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	sigset_t none, all;
	int result;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	result = posix_spawnp(pid, argv[0], &files, &attributes, argv, environ);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attributes);
	return result;
}

/* False: it has not ended by then. */
static bool wait_for(pid_t pid, unsigned seconds, int *status)
{
	struct pollfd ended = {.fd = pidfd_open(pid, 0), .events = POLLIN};
	bool over = ended.fd < 0 || poll(&ended, 1, (int)seconds * 1000) == 1;

	if (ended.fd >= 0)
		close(ended.fd);
	return over && waitpid(pid, status, 0) == pid;
}

static void tell_end(char sentence[SENTENCE_BYTES], int status)
{
	if (WIFSIGNALED(status))
		snprintf(sentence, SENTENCE_BYTES, "it was ended by signal %d", WTERMSIG(status));
	else if (WEXITSTATUS(status) != 0)
		snprintf(sentence, SENTENCE_BYTES, "it ended with status %d", WEXITSTATUS(status));
}

/* SENTENCE stays empty when all went well. */
static void run_to_its_end(char *const *argv, unsigned seconds, char sentence[SENTENCE_BYTES])
{
	int status = 0, result;
	pid_t pid;

	result = spawn(argv, &pid);
	if (result != 0) {
		snprintf(sentence, SENTENCE_BYTES, "%s cannot be started: %s", argv[0], strerror(result));
	} else if (wait_for(pid, seconds, &status)) {
		tell_end(sentence, status);
	} else {
		kill(-pid, SIGKILL);
		(void)wait_for(pid, KILL_SECONDS, &status);
		snprintf(sentence, SENTENCE_BYTES, "it was stopped because it took too long");
	}
}

static void __attribute__((noreturn)) be_runner(const char *const *program, const struct order *order, int answer)
{
	char sentence[SENTENCE_BYTES] = "", byte;
	const char *argv[ARGUMENTS_MAX + 2];
	unsigned count = 0;

	for (; program[count] && count < ARGUMENTS_MAX; count++)
		argv[count] = program[count];
	argv[count] = order->argument;
	argv[count + 1] = NULL;
	signal(SIGCHLD, SIG_DFL);
	close(SOCKET_FD);
	run_to_its_end((char *const *)argv, order->seconds, sentence);
	byte = sentence[0] ? ANSWER_FAILED : ANSWER_DONE;
	_exit(write(answer, &byte, 1) == 1 && write(answer, sentence, strlen(sentence)) >= 0 ? 0 : 1);
}

/* ---- The starter ------------------------------------------------------------- */

/* -1: there is no other order, nor will there be one. *ANSWER: -1, or a descriptor. */
static ssize_t receive(struct order *order, int *answer)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec data = {order, sizeof(*order)};
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *head;
	ssize_t length;

	do
		length = recvmsg(SOCKET_FD, &message, MSG_CMSG_CLOEXEC);
	while (length < 0 && errno == EINTR);
	head = length > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	*answer = -1;
	if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS)
		memcpy(answer, CMSG_DATA(head), sizeof(*answer));
	return length > 0 ? length : -1;
}

static bool is_valid(const struct order *order, ssize_t length)
{
	return length > (ssize_t)offsetof(struct order, argument) && ((const char *)order)[length - 1] == '\0' &&
	       order->program < STARTER_PROGRAMS;
}

static void __attribute__((noreturn)) serve(const char *const *const programs[STARTER_PROGRAMS])
{
	struct order order;
	ssize_t length;
	int answer;

	while ((length = receive(&order, &answer)) >= 0) {
		if (answer >= 0 && is_valid(&order, length) && programs[order.program] && fork() == 0)
			be_runner(programs[order.program], &order, answer);
		if (answer >= 0)
			close(answer);
	}
	_exit(0);
}

/* Nothing that the process has open lives on in the starter, and none of its signals ends it. */
static void __attribute__((noreturn))
be_starter(const char *const *const programs[STARTER_PROGRAMS], int fd, bool quiet)
{
	int nothing;
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	signal(SIGCHLD, SIG_IGN);
	prctl(PR_SET_NAME, "leafdisk-start");
	setsid();
	if (chdir("/") != 0 || dup2(fd, SOCKET_FD) < 0)
		_exit(1);
	close_range(SOCKET_FD + 1, ~0U, 0);
	nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int standard = STDIN_FILENO; nothing >= 0 && standard <= (quiet ? STDERR_FILENO : STDOUT_FILENO);
	     standard++)
		dup2(nothing, standard);
	fcntl(SOCKET_FD, F_SETFD, FD_CLOEXEC);
	serve(programs);
}

bool starter_begin(const char *const *const programs[STARTER_PROGRAMS], bool quiet, GError **error)
{
	bool any = false;
	int ends[2];

	for (unsigned i = 0; i < STARTER_PROGRAMS; i++)
		any |= has[i] = programs[i] != NULL;
	if (!any)
		return true;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
		return error_set_errno(error, errno, "cannot make a pair of sockets");
	starter_pid = fork();
	if (starter_pid == 0)
		be_starter(programs, ends[1], quiet);
	close(ends[1]);
	starter_fd = ends[0];
	if (starter_pid > 0)
		return true;
	starter_end();
	return error_set_errno(error, EAGAIN, "the process that starts programs cannot be made");
}

void starter_end(void)
{
	memset(has, 0, sizeof(has));
	if (starter_fd >= 0)
		close(starter_fd);
	if (starter_pid > 0)
		waitpid(starter_pid, NULL, 0);
	starter_fd = -1;
	starter_pid = 0;
}

bool starter_has(enum starter_program program)
{
	return has[program];
}

/* ---- Requests ---------------------------------------------------------------- */

static bool send_order(const struct order *order, int answer)
{
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec data = {(void *)order, offsetof(struct order, argument) + strlen(order->argument) + 1};
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);

	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(answer));
	memcpy(CMSG_DATA(head), &answer, sizeof(answer));
	return sendmsg(starter_fd, &message, MSG_NOSIGNAL) > 0;
}

/* What of an answer there is; its end is that of the pipe. */
static size_t read_answer(int fd, char answer[SENTENCE_BYTES + 1])
{
	size_t length = 0;
	ssize_t got = 1;

	while (got != 0 && length < SENTENCE_BYTES) {
		got = read(fd, answer + length, SENTENCE_BYTES - length);
		if (got < 0 && errno != EINTR)
			break;
		length += got > 0 ? (size_t)got : 0;
	}
	answer[length] = '\0';
	return length;
}

static bool take_answer(int fd, GError **error)
{
	char answer[SENTENCE_BYTES + 1];

	if (read_answer(fd, answer) == 0)
		return error_set(error, ECHILD, "the process that starts programs is gone");
	return answer[0] == ANSWER_DONE || error_set(error, EIO, "%s", answer + 1);
}

bool starter_run(enum starter_program program, const char *argument, unsigned seconds, GError **error)
{
	struct order order = {.program = program, .seconds = seconds};
	bool sent, done = false;
	int ends[2];

	thread_assert_may_wait();
	if (g_strlcpy(order.argument, argument, sizeof(order.argument)) >= sizeof(order.argument))
		return error_set(error, ENAMETOOLONG, "its argument is longer than %d bytes", ARGUMENT_BYTES - 1);
	if (pipe2(ends, O_CLOEXEC) != 0)
		return error_set_errno(error, errno, "cannot make a pipe");
	sent = send_order(&order, ends[1]);
	close(ends[1]);
	if (sent)
		done = take_answer(ends[0], error);
	else
		error_set(error, ECHILD, "the process that starts programs is gone");
	close(ends[0]);
	return done;
}
