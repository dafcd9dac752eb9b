/* Events: what has happened, for who looks later and who waits for it.
 *
 * A ring of the last ones. Each has a number, one more than the one before, so who reads
 * on knows how many it has missed. Any thread, whatever is locked. */
#ifndef LEAFDISK_CORE_EVENTS_H
#define LEAFDISK_CORE_EVENTS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* Events kept. */
#define EVENTS_KEPT 256

enum event_severity { EVENT_INFO, EVENT_WARNING, EVENT_ERROR };

struct event {
	char *time; /* in UTC */
	enum event_severity severity;
	char *disk; /* that it is about; NULL: none, or several */
	char *message;
};

/* MESSAGE is one line of printable text; a very long one is cut. */
void events_add(enum event_severity severity, const char *disk, const char *message);
/* Calls EACH for all, the oldest first, under the lock: it adds none. */
void events_each(void (*each)(const struct event *event));

/* Appends the events from number *NEXT on, a line each: time, severity, disk ("-": none) and message, which
 * does not begin with the disk again; and moves *NEXT behind them. Those that are kept no more are one line
 * that says how many they were, unless *NEXT is 0. */
void events_read(uint64_t *next, GString *text);
/* The number of the next event. */
uint64_t events_next(void);

/* Something may have happened that is no event of its own. */
void events_stir(void);
/* How often something happened or may have. */
uint64_t events_stirs(void);
/* Until that is not STIRS any more; false: it is UNTIL_NS, on the clock of loop_now_ns(). Blocks. */
bool events_wait(uint64_t stirs, uint64_t until_ns);

#endif
