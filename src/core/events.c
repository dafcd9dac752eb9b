/* Events: a ring. The one with number N stands at N modulo its size. */
#include "core/events.h"

#include <string.h>

#include "core/lock.h"
#include "core/text.h"
#include "core/thread.h"

/* Longer than every sentence of ours, with a path in it. */
#define MESSAGE_BYTES_MAX 8192

static const char *const severity_names[] = {"info", "warning", "error"};

static struct lock lock = LOCK_INIT(LOCK_RANK_EVENTS);
static struct condition happened = CONDITION_INIT;
static struct event ring[EVENTS_KEPT];
static uint64_t next_number;
static uint64_t stirred;

static char *time_now(void)
{
	g_autoptr(GDateTime) now = g_date_time_new_now_utc();

	return g_date_time_format_iso8601(now);
}

static void clear(struct event *event)
{
	g_free(event->time);
	g_free(event->disk);
	g_free(event->message);
}

void events_add(enum event_severity severity, const char *disk, const char *message)
{
	struct event event = {
		.time = time_now(),
		.severity = severity,
		.disk = g_strdup(disk),
		.message = g_strndup(message, MESSAGE_BYTES_MAX),
	};
	struct event *place;

	LOCK_GUARD(&lock);
	place = &ring[next_number++ % EVENTS_KEPT];
	clear(place);
	*place = event;
	stirred++;
	condition_broadcast(&happened);
}

static uint64_t first_kept_locked(void)
{
	lock_assert_mine(&lock);
	return next_number > EVENTS_KEPT ? next_number - EVENTS_KEPT : 0;
}

void events_each(void (*each)(const struct event *event))
{
	LOCK_GUARD(&lock);
	for (uint64_t i = first_kept_locked(); i < next_number; i++)
		each(&ring[i % EVENTS_KEPT]);
}

/* Behind "DISK: ", if it begins so. */
static const char *rest_of(const struct event *event)
{
	size_t length = event->disk ? strlen(event->disk) : 0;
	bool names = length && strncmp(event->message, event->disk, length) == 0 &&
		     g_str_has_prefix(event->message + length, ": ");

	return names ? event->message + length + 2 : event->message;
}

/* The disk's name is one word. */
static void append_line(GString *text, const struct event *event)
{
	g_string_append_printf(text, "%s %s ", event->time, severity_names[event->severity]);
	text_append_escaped(text, event->disk ? event->disk : "-", " ");
	g_string_append_printf(text, " %s\n", rest_of(event));
}

static void append_missed(GString *text, uint64_t count)
{
	g_autofree char *time = time_now();
	g_autofree char *message = g_strdup_printf("%" G_GUINT64_FORMAT " events before this were missed", count);
	struct event event = {.time = time, .severity = EVENT_WARNING, .message = message};

	append_line(text, &event);
}

void events_read(uint64_t *next, GString *text)
{
	uint64_t first;

	LOCK_GUARD(&lock);
	first = MAX(first_kept_locked(), *next);
	if (*next && first > *next)
		append_missed(text, first - *next);
	for (uint64_t i = first; i < next_number; i++)
		append_line(text, &ring[i % EVENTS_KEPT]);
	*next = next_number;
}

uint64_t events_next(void)
{
	LOCK_GUARD(&lock);
	return next_number;
}

void events_stir(void)
{
	LOCK_GUARD(&lock);
	stirred++;
	condition_broadcast(&happened);
}

uint64_t events_stirs(void)
{
	LOCK_GUARD(&lock);
	return stirred;
}

bool events_wait(uint64_t stirs, uint64_t until_ns)
{
	bool waiting = true;

	thread_assert_may_wait();
	LOCK_GUARD(&lock);
	while (stirred == stirs && waiting)
		waiting = lock_wait_until(&lock, &happened, until_ns);
	return stirred != stirs;
}
