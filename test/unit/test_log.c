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

/* Of each object and kind once, until a minute has passed. */
static void test_limited(void)
{
	g_autofree char *text = NULL;

	capture();
	for (int i = 0; i < 1000; i++) {
		log_warning_limited("web1", "waits", "web1 waits, %d", i);
		log_warning_limited("web2", "waits", "web2 waits");
		log_warning_limited("web1", "fails", "web1 fails");
	}
	text = captured();
	g_assert_cmpstr(text, ==,
			"prog: warning: web1 waits, 0\nprog: warning: web2 waits\nprog: warning: web1 fails\n");
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

static bool control(enum log_module module)
{
	return log_debug_enabled(module, LOG_CONTROL);
}

static bool data(enum log_module module)
{
	return log_debug_enabled(module, LOG_DATA);
}

static void test_debug_switch(void)
{
	g_assert_false(control(LOG_CORE));
	g_assert_true(log_set_debug("aio, fuse", NULL));
	g_assert_true(control(LOG_AIO) && control(LOG_FUSE));
	g_assert_false(data(LOG_AIO) || data(LOG_FUSE));
	g_assert_false(control(LOG_CORE) || control(LOG_DISK));
	g_assert_false(log_set_debug("core,nonsense", NULL));
	g_assert_true(control(LOG_AIO) && !control(LOG_CORE));
	g_assert_true(log_set_debug("all", NULL));
	for (int i = 0; i < LOG_MODULES; i++)
		g_assert_true(control((enum log_module)i) && !data((enum log_module)i));
	g_assert_true(log_set_debug("", NULL));
	for (int i = 0; i < LOG_MODULES; i++)
		g_assert_false(control((enum log_module)i));
}

static void test_debug_levels(void)
{
	g_assert_true(log_set_debug("aio=1:disk=2", NULL));
	g_assert_true(control(LOG_AIO) && !data(LOG_AIO));
	g_assert_true(control(LOG_DISK) && data(LOG_DISK));
	g_assert_true(log_set_debug("all:image=2", NULL));
	g_assert_true(data(LOG_IMAGE) && control(LOG_CORE) && !data(LOG_CORE));
	g_assert_true(log_set_debug("all=2", NULL));
	for (int i = 0; i < LOG_MODULES; i++)
		g_assert_true(data((enum log_module)i));
	g_assert_true(log_set_debug("", NULL));
}

/* The refusal names the word, and what there is. */
static void test_debug_refused(void)
{
	static const char *const bad[] = {"nonsense", "disk=", "disk=0", "disk=3", "disk=22", "=1", "disk=1=2", "dis"};

	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
		g_autoptr(GError) error = NULL;
		g_autofree char *spec = g_strconcat("aio:", bad[i], NULL);

		g_assert_false(log_set_debug(spec, &error));
		g_assert_nonnull(strstr(error->message, bad[i]));
		g_assert_nonnull(strstr(error->message, "core, aio, image, cache, disk, fuse, or all"));
		g_assert_false(control(LOG_AIO));
	}
	g_assert_false(log_set_debug("aio:", NULL));
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
	counters_reset();
	for (const struct counter_info *info = counter_table; info->name; info++)
		g_assert_cmpuint(counter_value(info), ==, 0);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	log_set_program("prog");
	g_test_add_func("/log/lines", test_lines);
	g_test_add_func("/log/limited", test_limited);
	g_test_add_func("/log/escapes", test_escapes);
	g_test_add_func("/log/debug-switch", test_debug_switch);
	g_test_add_func("/log/debug-switch-levels", test_debug_levels);
	g_test_add_func("/log/debug-switch-refused", test_debug_refused);
	g_test_add_func("/log/threads", test_threads);
	g_test_add_func("/counters/table", test_counters);
	return g_test_run();
}
