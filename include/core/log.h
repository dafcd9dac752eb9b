/* Messages: error, warning, info, and debug per module, switched at run time.
 *
 * Lines go to standard error until log_use_syslog(), then to syslog too.
 * Any thread. */
#ifndef LEAFDISK_CORE_LOG_H
#define LEAFDISK_CORE_LOG_H

#include <stdbool.h>

enum log_module { LOG_CORE, LOG_AIO, LOG_IMAGE, LOG_DISK, LOG_CACHE, LOG_FUSE, LOG_CTL, LOG_MODULES };

/* Name of the program in every line; must outlive the program. */
void log_set_program(const char *name);
void log_use_syslog(void);
/* SPEC: comma-separated module names, or "all", or "" for none.
 * False when a name is unknown (nothing changes then). */
bool log_set_debug(const char *spec);
bool log_debug_enabled(enum log_module module);

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* At most once a minute for what is said of OBJECT by the same KIND; what came
 * meanwhile is counted, and the number said with the next. Any thread. */
void log_warning_limited(const char *object, const char *kind, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* An info line that belongs among the events: a state that has changed. */
void log_event(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug_always(enum log_module module, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Events kept: errors, warnings, and what log_event() was called for. */
#define LOG_EVENTS 256
/* The last of them, oldest first, a line each: time in UTC, then the message as
 * it was logged, without the program's name. g_free. */
char *log_events(void);

#define log_debug(module, ...)                                                                                         \
	do {                                                                                                           \
		if (__builtin_expect(log_debug_enabled(module), 0))                                                    \
			log_debug_always(module, __VA_ARGS__);                                                         \
	} while (0)

#endif
