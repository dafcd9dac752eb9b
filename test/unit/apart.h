/* What tests run in processes of their own, and how those end.
 *
 * A child of fork() has the locks and counts of its parent's threads, and not the threads: whoever
 * relies on one waits for ever. So a process that forks has none: what would start some runs apart. */
#ifndef LEAFDISK_TEST_APART_H
#define LEAFDISK_TEST_APART_H

#include <glib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* No test takes longer, and no child. */
#define DEADLINE_S (getenv("LEAFDISK_TORTURE") ? 7200u : 600u)

/* Between a process and its children; munmap() frees it. */
static inline void *shared_memory(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	g_assert_true(memory != MAP_FAILED);
	return memory;
}

/* Those of core/thread.h; a sanitizer has some too. */
static inline void assert_no_threads(void)
{
	GDir *tasks = g_dir_open("/proc/self/task", 0, NULL);
	const char *task;

	g_assert_nonnull(tasks);
	while ((task = g_dir_read_name(tasks))) {
		g_autofree char *path = g_strdup_printf("/proc/self/task/%s/comm", task), *name = NULL;

		if (g_file_get_contents(path, &name, NULL, NULL) && g_str_has_prefix(name, "leafdisk-"))
			g_error("the thread %s is there, and would be missing in the child", g_strchomp(name));
	}
	g_dir_close(tasks);
}

/* No two children draw the same random numbers. */
static inline pid_t fork_child(void)
{
	pid_t child;

	assert_no_threads();
	g_test_rand_int();
	fflush(NULL);
	child = fork();
	g_assert_cmpint(child, >=, 0);
	if (child == 0)
		alarm(DEADLINE_S);
	return child;
}

/* CHILD has ended by itself. */
static inline int exit_status_of(pid_t child)
{
	int status;

	g_assert_cmpint(waitpid(child, &status, 0), ==, child);
	if (WIFSIGNALED(status))
		g_error("a child was ended by signal %d", WTERMSIG(status));
	g_assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* In a process that ends as a program does. */
static inline void run_apart(void (*run)(void *opaque), void *opaque)
{
	pid_t child = fork_child();

	if (child == 0) {
		run(opaque);
		exit(g_test_failed() ? 1 : 0);
	}
	g_assert_cmpint(exit_status_of(child), ==, 0);
}

static inline void run_test(void *test)
{
	((void (*)(void))(uintptr_t)test)();
}

static inline void run_test_apart(const void *test)
{
	run_apart(run_test, (void *)(uintptr_t)test);
}

/* A test beside others that fork. */
static inline void add_apart(const char *path, void (*test)(void))
{
	g_test_add_data_func(path, (const void *)(uintptr_t)test, run_test_apart);
}

#endif
