/* A process that dies while its cache takes what is of a base, and of a leaf that is mirrored:
 * what the next one serves is right. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "apart.h"
#include "cache_rig.h"

static _Atomic uint64_t *rounds_done; /* of the child */

/* Reads what is cached of a base whose content never changes, and adds to it;
 * a leaf is written all the time. Until the end of the process. */
static void G_GNUC_NORETURN run_until_killed(const char *path)
{
	struct cache *cache = open_cache(path, SMALL);
	struct cache_layer *base = open_layer(cache, 1, 11, false);
	struct cache_layer *leaf = open_layer(cache, 2, 21, true);
	struct user user;

	user_init(&user);
	for (uint64_t i = 0;; i++) {
		uint64_t block = (uint64_t)g_rand_int_range(user.random, 0, 2000);

		if (put(&user, base, 1, block, 8, 0, false) < 0 || put(&user, leaf, 2, block, 1, i, false) < 0)
			_exit(3);
		if (i % 16 == 0)
			forget(&user, leaf, block, 100);
		if (i % 64 == 0)
			(void)cache_sync(cache);
		*rounds_done = i;
	}
}

static uint64_t count_base(struct user *user, struct cache_layer *base)
{
	uint64_t served = 0;

	for (uint64_t block = 0; block < 2008; block++)
		if (read_blocks(user, base, block, 1).answer == CACHE_HIT && user->result == 0) {
			g_assert_true(is_filled(user->buffer, 1, block, 0));
			served++;
		}
	return served;
}

/* What the next process finds; SERVED is shared with it. */
struct next {
	const char *path;
	uint64_t *served;
};

static void open_next(void *opaque)
{
	const struct next *next = opaque;
	struct cache *cache = open_cache(next->path, 0);
	struct cache_layer *base = open_layer(cache, 1, 11, false);
	struct cache_layer *leaf = open_layer(cache, 2, 22, true);
	struct user user;

	user_init(&user);
	*next->served += count_base(&user, base);
	g_assert_cmpuint(cache_lookup(leaf, 0, 2100).blocks, ==, 2100);
	cache_layer_close(base, 0);
	cache_layer_close(leaf, 21);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

static pid_t begin(const char *path, const char *faults)
{
	pid_t child;

	*rounds_done = 0;
	child = fork_child();
	if (child == 0) {
		arm(faults);
		run_until_killed(path);
	}
	return child;
}

/* However busy the machine is, it has put something before it is killed. */
static void kill_once(const char *path)
{
	pid_t child = begin(path, "");
	int status;

	while (*rounds_done == 0) {
		g_assert_cmpint(waitpid(child, &status, WNOHANG), ==, 0);
		g_usleep(1000);
	}
	g_usleep((gulong)g_test_rand_int_range(20000, 300000));
	kill(child, SIGKILL);
	g_assert_cmpint(waitpid(child, &status, 0), ==, child);
	g_assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_kill(void)
{
	g_autofree char *path = new_path();
	struct next next = {path, shared_memory(sizeof(*next.served))};

	for (unsigned round = 0; round < 12; round++) {
		kill_once(path);
		run_apart(open_next, &next);
	}
	g_assert_cmpuint(*next.served, >, 0);
	munmap(next.served, sizeof(*next.served));
}

#ifdef LEAFDISK_FAULTS
static void test_crash_points(void)
{
	static const char *const points[] = {"aio.write", "aio.datasync", "cache.super"};
	g_autofree char *path = new_path();
	struct next next = {path, shared_memory(sizeof(*next.served))};

	for (unsigned point = 0; point < G_N_ELEMENTS(points); point++) {
		for (unsigned nth = 1; nth < 30; nth += 4) {
			g_autofree char *spec = g_strdup_printf("%s:crash@%u", points[point], nth);

			g_assert_cmpint(exit_status_of(begin(path, spec)), ==, 77);
			run_apart(open_next, &next);
		}
	}
	munmap(next.served, sizeof(*next.served));
}
#endif

int main(int argc, char **argv)
{
	int result;

	g_test_init(&argc, &argv, NULL);
	alarm(DEADLINE_S); /* what waits for ever fails */
	make_directory();
	rounds_done = shared_memory(sizeof(*rounds_done));
	g_test_add_func("/cache-kill/kill", test_kill);
#ifdef LEAFDISK_FAULTS
	g_test_add_func("/cache-kill/crash-points", test_crash_points);
#endif
	result = g_test_run();
	remove_directory();
	return result;
}
