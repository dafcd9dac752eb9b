/* Messages: error, warning, info, and debug per module, switched at run time.
 *
 * Lines go to standard error until log_use_syslog(), then to syslog too. Errors, warnings and
 * what log_event() is called for are events (core/events.h). Any thread. */
#ifndef LEAFDISK_CORE_LOG_H
#define LEAFDISK_CORE_LOG_H

#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/events.h"

/* MODULE(symbol, name): whose debug messages can be had. Each of them has messages of
 * both levels, and a test sees them. */
#define LOG_MODULE_LIST(MODULE)                                                                                        \
	MODULE(CORE, "core")                                                                                           \
	MODULE(AIO, "aio")                                                                                             \
	MODULE(IMAGE, "image")                                                                                         \
	MODULE(CACHE, "cache")                                                                                         \
	MODULE(DISK, "disk")                                                                                           \
	MODULE(FUSE, "fuse")

enum log_module {
#define LOG_ENUM(symbol, name) LOG_##symbol,
	LOG_MODULE_LIST(LOG_ENUM)
#undef LOG_ENUM
		LOG_MODULES
};

/* "core, aio, ", each with a comma behind it: a literal, for texts that list them. */
#define LOG_MODULE_WORD(symbol, name) name ", "
#define LOG_MODULE_WORDS LOG_MODULE_LIST(LOG_MODULE_WORD)

enum log_level {
	LOG_QUIET,
	LOG_CONTROL, /* what happens now and then: something is opened, changed, closed */
	LOG_DATA,    /* and what each request of a guest does */
};

/* Name of the program in every line; must outlive the program. */
void log_set_program(const char *name);
/* With the events so far. */
void log_use_syslog(void);
/* SPEC: names of modules, or "all", apart by colons or commas, each with "=1" or "=2"
 * for its level, 1 without; the last one counts. "": none. False and ERROR: a name or
 * a level is unknown, and nothing has changed. */
bool log_set_debug(const char *spec, GError **error);

extern _Atomic unsigned char log_debug_levels[LOG_MODULES];
static inline bool log_debug_enabled(enum log_module module, enum log_level level)
{
	return atomic_load_explicit(&log_debug_levels[module], memory_order_relaxed) >= level;
}

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* At most once a minute for what is said of OBJECT by the same KIND; what came
 * meanwhile is counted, and the number said with the next. Any thread. */
void log_warning_limited(const char *object, const char *kind, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* An info line that belongs among the events: a state that has changed. */
void log_event(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same about DISK, as each of the above. */
void log_disk(enum event_severity severity, const char *disk, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Among the events alone. */
void log_event_only(enum event_severity severity, const char *disk, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void log_disk_limited(const char *disk, const char *kind, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void log_debug_always(enum log_module module, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_debug_at(level, module, ...)                                                                               \
	do {                                                                                                           \
		if (__builtin_expect(log_debug_enabled(module, level), 0))                                             \
			log_debug_always(module, __VA_ARGS__);                                                         \
	} while (0)
#define log_debug(module, ...) log_debug_at(LOG_CONTROL, module, __VA_ARGS__)
#define log_debug_data(module, ...) log_debug_at(LOG_DATA, module, __VA_ARGS__)

#endif
