/* Log lines as they reach standard error, and the counters' table. */
#include "core/log.h"

#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "core/counters.h"

static int saved_stderr;
static int read_end;

static void capture(void)
{
	int ends[2];

	g_assert_cmpint(pipe(ends), ==, 0);
	saved_stderr = dup(STDERR_FILENO);
	dup2(ends[1], STDERR_FILENO);
	close(ends[1]);
	read_end = ends[0];
}

/* What was written since capture(). */
static char *captured(void)
{
	char *text = g_malloc0(65536);

	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	g_assert_cmpint(read(read_end, text, 65535), >=, 0);
	close(read_end);
	return text;
}

static void test_lines(void)
{
	g_autofree char *text = NULL;

	capture();
	log_error("%s failed", "it");
	log_warning("%d left", 3);
	log_info("ready");
	log_debug_always(LOG_AIO, "deep");
	text = captured();
	g_assert_cmpstr(text, ==,
			"prog: error: it failed\nprog: warning: 3 left\nprog: ready\nprog: debug: aio: deep\n");
}

static void test_escapes(void)
{
	g_autofree char *text = NULL;

	capture();
	errno = EBADF;
	log_info("a\nb\tc\r\033[31m\177 %s", "\x9b"
					     "1m \xc3\xa9 \xc2\x9b \xe2\x80\xae\xff");
	g_assert_cmpint(errno, ==, EBADF);
	text = captured();
	g_assert_cmpstr(text, ==,
			"prog: a\\nb\\tc\\r\\x1b[31m\\x7f \\x9b1m \xc3\xa9 \\xc2\\x9b \\xe2\\x80\\xae\\xff\n");
}

static void test_debug_switch(void)
{
	g_assert_false(log_debug_enabled(LOG_CORE));
	g_assert_true(log_set_debug("aio, ctl"));
	g_assert_true(log_debug_enabled(LOG_AIO) && log_debug_enabled(LOG_CTL));
	g_assert_false(log_debug_enabled(LOG_CORE) || log_debug_enabled(LOG_FUSE));
	g_assert_false(log_set_debug("core,nonsense"));
	g_assert_true(log_debug_enabled(LOG_AIO) && !log_debug_enabled(LOG_CORE));
	g_assert_true(log_set_debug("all"));
	for (int i = 0; i < LOG_MODULES; i++)
		g_assert_true(log_debug_enabled((enum log_module)i));
	g_assert_true(log_set_debug(""));
	for (int i = 0; i < LOG_MODULES; i++)
		g_assert_false(log_debug_enabled((enum log_module)i));
}

static void *log_often(void *unused)
{
	(void)unused;
	for (int i = 0; i < 200; i++)
		log_info("0123456789012345678901234567890123456789");
	return NULL;
}

static void test_threads(void)
{
	static const char line[] = "prog: 0123456789012345678901234567890123456789\n";
	g_autofree char *text = NULL;
	pthread_t threads[4];

	capture();
	for (int i = 0; i < 4; i++)
		g_assert_cmpint(pthread_create(&threads[i], NULL, log_often, NULL), ==, 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	text = captured();
	g_assert_cmpuint(strlen(text), ==, 800 * strlen(line));
	for (size_t i = 0; i < 800; i++)
		g_assert_cmpmem(text + i * strlen(line), strlen(line), line, strlen(line));
}

static void test_counters(void)
{
	size_t count = 0;

	counter_add(map_regions, 3);
	counter_add(map_regions, 4);
	for (const struct counter_info *info = counter_table; info->name; info++) {
		_Atomic uint64_t *value = (_Atomic uint64_t *)((char *)&counters + info->offset);

		g_assert_cmpuint(atomic_load(value), ==, strcmp(info->name, "map_regions") == 0 ? 7 : 0);
		g_assert_true(*info->unit && *info->help);
		count++;
	}
	g_assert_cmpuint(count * sizeof(uint64_t), ==, sizeof(struct counters));
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	log_set_program("prog");
	g_test_add_func("/log/lines", test_lines);
	g_test_add_func("/log/escapes", test_escapes);
	g_test_add_func("/log/debug-switch", test_debug_switch);
	g_test_add_func("/log/threads", test_threads);
	g_test_add_func("/counters/table", test_counters);
	return g_test_run();
}
