/* Fault points: the grammar, counting, subjects, the gate, threads. */
#include "core/fault.h"

#ifdef LEAFDISK_FAULTS

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"

#define THREADS 4
#define HITS_PER_THREAD 10000

static void arm(const char *spec)
{
	g_autoptr(GError) error = NULL;
	bool ok = fault_arm(spec, &error);

	g_assert_no_error(error);
	g_assert_true(ok);
}

/* Hits POINT as often as there are values before the 99. */
static void assert_hits(const char *point, const char *subject, const int *expected)
{
	for (; *expected != 99; expected++)
		g_assert_cmpint(fault_hit(point, subject), ==, *expected);
}

#define HITS(point, subject, ...) assert_hits(point, subject, (const int[]){__VA_ARGS__, 99})

static void test_counts(void)
{
	arm("write:EIO");
	HITS("write", NULL, -EIO, -EIO, -EIO);
	HITS("read", NULL, 0, 0);
	HITS("writev", NULL, 0, 0);
	arm("write:ENOSPC@3");
	HITS("write", NULL, 0, 0, -ENOSPC, -ENOSPC, -ENOSPC);
	arm("write:EAGAINx2");
	HITS("write", NULL, -EAGAIN, -EAGAIN, 0, 0);
	arm("write:short@2x1");
	HITS("write", NULL, 0, FAULT_SHORT, 0, 0);
	arm("");
	HITS("write", NULL, 0, 0);
}

/* About one in ten of those that it is about, and no other. */
static void test_odds(void)
{
	unsigned fired = 0;

	arm("write:EIO@11x10000%10");
	HITS("write", NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	for (int i = 0; i < 10000; i++)
		fired += fault_hit("write", NULL) == -EIO;
	g_assert_cmpuint(fired, >, 500);
	g_assert_cmpuint(fired, <, 2000);
	for (int i = 0; i < 1000; i++)
		g_assert_cmpint(fault_hit("write", NULL), ==, 0);
	arm("write:EIO%1");
	HITS("write", NULL, -EIO, -EIO, -EIO);
}

static void test_several_rules(void)
{
	arm(" write:EIO@2x1 ; read:EBUSY ;write:EROFS@3x1;; ");
	HITS("write", NULL, 0, -EIO, -EROFS, 0);
	HITS("read", NULL, -EBUSY);
	arm("write:EIOx1;write:EROFSx2");
	HITS("write", NULL, -EIO, -EROFS, 0);
}

static void test_subject(void)
{
	arm("write/web1.leaf:EIO@2");
	HITS("write", NULL, 0, 0, 0);
	HITS("write", "/pool/web2.leaf", 0, 0, 0);
	HITS("write", "/pool/web1.leaf", 0, -EIO);
	HITS("write", "web1.leaf", -EIO);
	arm("open/nbd://host:10809/disk:ENODEV");
	HITS("open", "nbd://host:10809/disk", -ENODEV);
	HITS("open", "nbd://host:10809/other", 0);
}

static void test_errno_names(void)
{
	static const struct {
		const char *name;
		int errnum;
	} names[] = {
		{"EIO", EIO},	  {"ENOSPC", ENOSPC}, {"EAGAIN", EAGAIN}, {"EBUSY", EBUSY},
		{"EINTR", EINTR}, {"ENOMEM", ENOMEM}, {"EROFS", EROFS},	  {"ETIMEDOUT", ETIMEDOUT},
		{"ENXIO", ENXIO}, {"EDQUOT", EDQUOT}, {"ENODEV", ENODEV},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
		g_autofree char *spec = g_strdup_printf("p:%sx1", names[i].name);

		arm(spec);
		HITS("p", NULL, -names[i].errnum, 0);
	}
	arm("p:E524x1;p:E7@2x1");
	HITS("p", NULL, -524, -7, 0);
}

static void test_sweep(void)
{
	arm("write:sweep@2x3");
	HITS("write", NULL, 0, -1, -2, -3, 0);
}

static void test_bad_syntax(void)
{
	static const char *const bad[] = {
		"write",	  "write:",	   ":EIO",	   "/x:EIO",	    "write:EFOO",
		"write:EIO@",	  "write:EIO@0",   "write:EIOx",   "write:EIOx0",   "write:EIO@-1",
		"write:EIO@1y",	  "write:EIOx1@2", "write:eio",	   "write: EIO",    "write:EIO@99999999999999999999",
		"read:EIO;write", "write:EIO%",	   "write:EIO%0",  "write:EIO%2x1", "write:EIO%4294967296",
		"write:E",	  "write:E0",	   "write:E12345", "write:E5y",	    NULL,
	};

	arm("kept:EIO");
	for (size_t i = 0; bad[i]; i++) {
		g_autoptr(GError) error = NULL;

		g_assert_false(fault_arm(bad[i], &error));
		g_assert_error(error, LEAFDISK_ERROR, EINVAL);
	}
	HITS("kept", NULL, -EIO);
}

static void test_gate(void)
{
	g_autofree char *gate = NULL;
	int fd = g_file_open_tmp("leafdisk-gate-XXXXXX", &gate, NULL);

	g_assert_cmpint(fd, >=, 0);
	unlink(gate);
	g_setenv("LEAFDISK_FAULTS_GATE", gate, TRUE);
	arm("write:EIO@2");
	errno = 0;
	HITS("write", NULL, 0, 0, 0);
	g_assert_cmpint(errno, ==, 0);
	g_assert_true(g_file_set_contents(gate, "", 0, NULL));
	HITS("write", NULL, 0, -EIO);
	unlink(gate);
	HITS("write", NULL, 0, 0);
	g_unsetenv("LEAFDISK_FAULTS_GATE");
	close(fd);
}

static void *hit_often(void *failures)
{
	for (int i = 0; i < HITS_PER_THREAD; i++)
		if (fault_hit("write", "a") == -EIO)
			atomic_fetch_add((atomic_int *)failures, 1);
	return NULL;
}

/* Every occurrence is counted once, whichever thread it is from. */
static void test_threads(void)
{
	pthread_t threads[THREADS];
	atomic_int failures = 0;

	arm("write/a:EIO@1001x5000");
	for (int i = 0; i < THREADS; i++)
		g_assert_cmpint(pthread_create(&threads[i], NULL, hit_often, &failures), ==, 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	g_assert_cmpint(atomic_load(&failures), ==, 5000);
}

/* The status of a child that arms SPEC and hits "write" once. */
static int child_status(const char *spec)
{
	pid_t child = fork();
	int status;

	g_assert_cmpint(child, >=, 0);
	if (child == 0) {
		if (!fault_arm(spec, NULL))
			_exit(1);
		_exit(fault_hit("write", NULL) == 0 ? 0 : 3);
	}
	g_assert_cmpint(waitpid(child, &status, 0), ==, child);
	g_assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void test_crash(void)
{
	g_assert_cmpint(child_status("write:crash"), ==, 77);
	g_assert_cmpint(child_status("write:crash@2"), ==, 0);
	g_assert_cmpint(child_status("write:EIO"), ==, 3);
}

/* Runs this program again with LEAFDISK_FAULTS=SPEC: "--hit" hits once. */
static int environment_status(const char *spec)
{
	g_autofree char *setting = g_strdup_printf("LEAFDISK_FAULTS=%s", spec);
	g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
	char *argv[] = {self, (char *)"--hit", NULL};
	char *envp[] = {setting, NULL};
	int status;

	g_assert_true(
		g_spawn_sync(NULL, argv, envp, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, NULL, NULL, &status, NULL));
	g_assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void test_environment(void)
{
	g_assert_cmpint(environment_status(""), ==, 0);
	g_assert_cmpint(environment_status("write:EIO"), ==, 3);
	g_assert_cmpint(environment_status("write:crash"), ==, 77);
	g_assert_cmpint(environment_status("write:EOI"), ==, 2);
}

int main(int argc, char **argv)
{
	if (argc == 2 && g_strcmp0(argv[1], "--hit") == 0)
		return fault_hit("write", NULL) == 0 ? 0 : 3;
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/fault/counts", test_counts);
	g_test_add_func("/fault/odds", test_odds);
	g_test_add_func("/fault/several-rules", test_several_rules);
	g_test_add_func("/fault/subject", test_subject);
	g_test_add_func("/fault/errno-names", test_errno_names);
	g_test_add_func("/fault/sweep", test_sweep);
	g_test_add_func("/fault/bad-syntax", test_bad_syntax);
	g_test_add_func("/fault/gate", test_gate);
	g_test_add_func("/fault/threads", test_threads);
	g_test_add_func("/fault/crash", test_crash);
	g_test_add_func("/fault/environment", test_environment);
	return g_test_run();
}

#else

/* Without fault points a hit is a constant. */
static void test_compiled_out(void)
{
	g_assert_cmpint(fault_hit("write", "a"), ==, 0);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/fault/compiled-out", test_compiled_out);
	return g_test_run();
}

#endif
