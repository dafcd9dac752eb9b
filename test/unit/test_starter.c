/* The process that starts programs: what it may run, how each ends, and what is left of it. */
#include "core/starter.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *directory;

static char *in_directory(const char *name)
{
	return g_build_filename(directory, name, NULL);
}

static void begin(const char *const *grow, const char *const *unmount)
{
	const char *const *programs[STARTER_PROGRAMS] = {[STARTER_GROW] = grow, [STARTER_UNMOUNT] = unmount};

	g_assert_true(starter_begin(programs, false, NULL));
}

/* "$1" is the argument of the request. */
static void begin_script(const char *script)
{
	const char *argv[] = {"sh", "-c", script, "script", NULL};

	begin(argv, NULL);
}

static void assert_fails(const char *argument, unsigned seconds, const char *sentence)
{
	g_autoptr(GError) error = NULL;

	g_assert_false(starter_run(STARTER_GROW, argument, seconds, &error));
	g_assert_cmpstr(error->message, ==, sentence);
}

static void test_none(void)
{
	begin(NULL, NULL);
	g_assert_false(starter_has(STARTER_GROW));
	g_assert_false(starter_has(STARTER_UNMOUNT));
	starter_end();
}

static void test_argument_and_status(void)
{
	g_autofree char *file = in_directory("a file");

	begin_script("case $1 in /*) : >\"$1\" ;; *) exit $1 ;; esac");
	g_assert_true(starter_has(STARTER_GROW));
	g_assert_false(starter_has(STARTER_UNMOUNT));
	g_assert_true(starter_run(STARTER_GROW, file, 60, NULL));
	g_assert_true(g_file_test(file, G_FILE_TEST_EXISTS));
	assert_fails("7", 60, "it ended with status 7");
	g_assert_true(starter_run(STARTER_GROW, "0", 60, NULL));
	assert_fails("1", 60, "it ended with status 1");
	starter_end();
	g_assert_false(starter_has(STARTER_GROW));
}

static void test_signal_and_limit(void)
{
	begin_script("if [ $1 = kill ]; then kill -TERM $$; fi; sleep 1000 & wait");
	assert_fails("kill", 60, "it was ended by signal 15");
	assert_fails("hang", 1, "it was stopped because it took too long");
	starter_end();
}

static void test_absent_program(void)
{
	const char *argv[] = {"/no/such/program", NULL};

	begin(argv, NULL);
	assert_fails("x", 60, "/no/such/program cannot be started: No such file or directory");
	starter_end();
}

static void test_long_argument(void)
{
	g_autofree char *longest = g_strnfill(4095, 'x'), *too_long = g_strnfill(4096, 'x');

	begin_script("test ${#1} = 4095");
	g_assert_true(starter_run(STARTER_GROW, longest, 60, NULL));
	assert_fails(too_long, 60, "its argument is longer than 4095 bytes");
	starter_end();
}

/* Nothing of the process is open in a program but what it is given, and no signal is blocked or ignored, but
 * for the two that glibc has for itself. */
static void test_what_a_program_has(void)
{
	int fd = dup(STDERR_FILENO);

	signal(SIGPIPE, SIG_IGN);
	begin_script("set -- /proc/self/fd/*; [ $# -le 4 ] || exit $#; "
		     "grep -q '^SigBlk:.0*$' /proc/self/status && grep -q '^SigIgn:.*[08]0000000$' /proc/self/status");
	g_assert_true(starter_run(STARTER_GROW, "x", 60, NULL));
	starter_end();
	close(fd);
}

static void *run_one(void *argument)
{
	return GINT_TO_POINTER(starter_run(STARTER_GROW, argument, 60, NULL));
}

/* One that waits for another's file: they run side by side. */
static void test_side_by_side(void)
{
	GThread *waits, *comes;

	begin_script("cd \"${1%/*}\" || exit 1; if [ ${1##*/} = waits ]; then until [ -e here ]; do sleep 0.02; done; "
		     "else : >here; fi");
	{
		g_autofree char *first = in_directory("waits"), *second = in_directory("comes");

		waits = g_thread_new(NULL, run_one, first);
		comes = g_thread_new(NULL, run_one, second);
		g_assert_true(g_thread_join(waits));
		g_assert_true(g_thread_join(comes));
	}
	starter_end();
}

/* Of process PID, or NULL. */
static char *name_of(const char *pid)
{
	g_autofree char *path = g_build_filename("/proc", pid, "comm", NULL);
	char *text = NULL;

	(void)g_file_get_contents(path, &text, NULL, NULL);
	return text ? g_strchomp(text) : NULL;
}

static pid_t parent_of(const char *pid)
{
	g_autofree char *path = g_build_filename("/proc", pid, "stat", NULL);
	g_autofree char *text = NULL;
	const char *end;

	if (!g_file_get_contents(path, &text, NULL, NULL))
		return 0;
	end = strrchr(text, ')');
	return end ? (pid_t)atoi(end + strlen(") S ")) : 0;
}

/* The starter that PARENT has; 0: none. */
static pid_t find_starter(pid_t parent)
{
	g_autoptr(GDir) processes = g_dir_open("/proc", 0, NULL);
	const char *pid;

	while ((pid = g_dir_read_name(processes))) {
		g_autofree char *name = g_ascii_isdigit(*pid) ? name_of(pid) : NULL;

		if (g_strcmp0(name, "leafdisk-start") == 0 && parent_of(pid) == parent)
			return (pid_t)atoi(pid);
	}
	return 0;
}

static pid_t await_starter(void)
{
	gint64 deadline = g_get_monotonic_time() + 60 * G_USEC_PER_SEC;
	pid_t pid;

	while (!(pid = find_starter(getpid())) && g_get_monotonic_time() < deadline)
		g_usleep(10 * 1000);
	g_assert_cmpint(pid, >, 0);
	return pid;
}

static void test_starter_is_killed(void)
{
	begin_script("true");
	kill(await_starter(), SIGKILL);
	while (find_starter(getpid()))
		waitpid(-1, NULL, 0);
	assert_fails("x", 60, "the process that starts programs is gone");
	starter_end();
}

int main(int argc, char **argv)
{
	int status;

	g_test_init(&argc, &argv, NULL);
	directory = g_dir_make_tmp("leafdisk-starter-XXXXXX", NULL);
	g_test_add_func("/starter/none", test_none);
	g_test_add_func("/starter/argument-and-status", test_argument_and_status);
	g_test_add_func("/starter/signal-and-limit", test_signal_and_limit);
	g_test_add_func("/starter/absent-program", test_absent_program);
	g_test_add_func("/starter/long-argument", test_long_argument);
	g_test_add_func("/starter/what-a-program-has", test_what_a_program_has);
	g_test_add_func("/starter/side-by-side", test_side_by_side);
	g_test_add_func("/starter/starter-is-killed", test_starter_is_killed);
	status = g_test_run();
	{
		g_autofree char *file = in_directory("a file"), *here = in_directory("here");

		unlink(file);
		unlink(here);
	}
	rmdir(directory);
	g_free(directory);
	return status;
}
