/* Events: the ring, what a reader is told that it has missed, and who waits. */
#include "core/events.h"

#include <pthread.h>
#include <string.h>

#include "core/log.h"
#include "core/loop.h"
#include "core/thread.h"
#include "core/time.h"

#define LONG_NS (60 * NS_PER_S)

/* The lines from *NEXT on, without their times. */
static char **read_lines(uint64_t *next)
{
	g_autoptr(GString) text = g_string_new(NULL);
	g_auto(GStrv) lines = NULL;
	GPtrArray *rest = g_ptr_array_new();

	events_read(next, text);
	lines = g_strsplit(text->str, "\n", -1);
	for (char **line = lines; *line && **line; line++) {
		g_autoptr(GDateTime) date = NULL;
		g_autofree char *time = g_strndup(*line, strcspn(*line, " "));

		date = g_date_time_new_from_iso8601(time, NULL);
		g_assert_nonnull(date);
		g_ptr_array_add(rest, g_strdup(*line + strlen(time) + 1));
	}
	g_ptr_array_add(rest, NULL);
	return (char **)g_ptr_array_free(rest, FALSE);
}

static void assert_lines(uint64_t *next, const char *const *expected)
{
	g_auto(GStrv) lines = read_lines(next);

	g_assert_cmpstrv(lines, expected);
}

#define NOTHING ((const char *const[]){NULL})
#define LINES(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_lines(void)
{
	uint64_t next = events_next();

	events_add(EVENT_INFO, NULL, "one");
	events_add(EVENT_WARNING, "web1.img", "web1.img: two");
	events_add(EVENT_ERROR, "a b\n\\.img", "three");
	events_add(EVENT_INFO, "web1.img", "web1.imgs: four");
	assert_lines(&next, LINES("info - one", "warning web1.img two", "error a\\040b\\012\\134.img three",
				  "info web1.img web1.imgs: four"));
	assert_lines(&next, NOTHING);
	g_assert_cmpuint(next, ==, events_next());
}

/* Errors, warnings and events of the log are events, and nothing else. */
static void test_log(void)
{
	uint64_t next = events_next();

	log_info("no event");
	log_warning("a warning");
	log_disk(EVENT_ERROR, "d.img", "%s: an %s", "d.img", "error");
	log_event("a\nstate");
	log_event_only(EVENT_INFO, "d.img", "not in the log");
	assert_lines(&next, LINES("warning - a warning", "error d.img an error", "info - a\\nstate",
				  "info d.img not in the log"));
}

/* A reader is told how many are gone; one that begins is not. */
static void test_missed(void)
{
	uint64_t next, from_the_beginning = 0;
	g_auto(GStrv) lines = NULL, all = NULL;

	events_add(EVENT_INFO, NULL, "first");
	next = events_next();
	for (unsigned i = 0; i < EVENTS_KEPT + 7; i++) {
		g_autofree char *number = g_strdup_printf("%u", i);

		events_add(EVENT_INFO, NULL, number);
	}
	lines = read_lines(&next);
	g_assert_cmpuint(g_strv_length(lines), ==, EVENTS_KEPT + 1);
	g_assert_cmpstr(lines[0], ==, "warning - 7 events before this were missed");
	g_assert_cmpstr(lines[1], ==, "info - 7");
	all = read_lines(&from_the_beginning);
	g_assert_cmpuint(g_strv_length(all), ==, EVENTS_KEPT);
	g_assert_cmpstr(all[0], ==, "info - 7");
	assert_lines(&next, NOTHING);
}

static void test_long_message(void)
{
	g_autofree char *huge = g_strnfill(20000, 'x');
	uint64_t next = events_next();
	g_auto(GStrv) lines = NULL;

	events_add(EVENT_INFO, NULL, huge);
	lines = read_lines(&next);
	g_assert_cmpuint(strlen(lines[0]), <, 10000);
	g_assert_cmpuint(strlen(lines[0]), >, 8000);
}

static void *add_later(void *opaque)
{
	(void)opaque;
	g_usleep(20000);
	events_add(EVENT_INFO, NULL, "awaited");
	return NULL;
}

static void *stir_later(void *opaque)
{
	(void)opaque;
	g_usleep(20000);
	events_stir();
	return NULL;
}

static void await(void *(*main)(void *opaque), unsigned added)
{
	uint64_t stirs = events_stirs(), number = events_next();
	pthread_t thread;

	g_assert_cmpint(pthread_create(&thread, NULL, main, NULL), ==, 0);
	g_assert_true(events_wait(stirs, loop_now_ns() + LONG_NS));
	pthread_join(thread, NULL);
	g_assert_cmpuint(events_next() - number, ==, added);
}

static void test_wait(void)
{
	uint64_t stirs = events_stirs();

	g_assert_false(events_wait(stirs, loop_now_ns()));
	g_assert_false(events_wait(stirs, loop_now_ns() + 10 * NS_PER_MS));
	await(add_later, 1);
	await(stir_later, 0);
	g_assert_true(events_wait(stirs, UINT64_MAX));
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	log_set_program("prog");
	g_test_add_func("/events/lines", test_lines);
	g_test_add_func("/events/log", test_log);
	g_test_add_func("/events/missed", test_missed);
	g_test_add_func("/events/long-message", test_long_message);
	g_test_add_func("/events/wait", test_wait);
	return g_test_run();
}
