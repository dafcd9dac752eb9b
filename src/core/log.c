/* Messages to standard error and syslog.
 *
 * A line is built whole and handed to the kernel by one write, so lines of
 * several threads do not mix. What a message quotes (a file name, a remote
 * server's words) may hold newlines or terminal escapes: everything that is
 * not plain printable text is shown as a backslash sequence. errno survives
 * every call.
 *
 * Events are kept in a ring, as the lines that were logged; a long one is cut. */
#include "core/log.h"

#include <errno.h>
#include <glib.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"
#include "core/lock.h"
#include "core/time.h"

static const char *const module_names[LOG_MODULES] = {
#define LOG_NAME(symbol, name) [LOG_##symbol] = name,
	LOG_MODULE_LIST(LOG_NAME)
#undef LOG_NAME
};

_Atomic unsigned char log_debug_levels[LOG_MODULES];

static _Atomic(const char *) program = "leafdisk";
static atomic_bool to_syslog;

/* Longer than every sentence of ours, with a path in it. */
#define EVENT_BYTES_MAX 8192

static struct lock events_lock = LOCK_INIT(LOCK_RANK_EVENTS);
struct event {
	char *line; /* NULL: none yet */
	int priority;
};
static struct event events[LOG_EVENTS];
static uint64_t events_seen; /* the next one's place is this modulo LOG_EVENTS */

static bool is_plain(gunichar c)
{
	switch (g_unichar_type(c)) {
	case G_UNICODE_CONTROL:
	case G_UNICODE_FORMAT:
	case G_UNICODE_SURROGATE:
	case G_UNICODE_LINE_SEPARATOR:
	case G_UNICODE_PARAGRAPH_SEPARATOR:
		return false;
	default:
		return true;
	}
}

static void append_escaped_byte(GString *line, unsigned char byte)
{
	if (byte == '\n')
		g_string_append(line, "\\n");
	else if (byte == '\t')
		g_string_append(line, "\\t");
	else if (byte == '\r')
		g_string_append(line, "\\r");
	else
		g_string_append_printf(line, "\\x%02x", byte);
}

static void append_escaped(GString *line, const char *text)
{
	while (*text) {
		gunichar c = g_utf8_get_char_validated(text, -1);
		bool valid = c != (gunichar)-1 && c != (gunichar)-2;
		const char *end = valid ? g_utf8_next_char(text) : text + 1;

		if (valid && is_plain(c)) {
			g_string_append_len(line, text, end - text);
			text = end;
		}
		while (text < end)
			append_escaped_byte(line, (unsigned char)*text++);
	}
}

static void write_line(const GString *line)
{
	ssize_t written;

	do
		written = write(STDERR_FILENO, line->str, line->len);
	while (written < 0 && errno == EINTR);
}

static void keep_event(int priority, const char *message)
{
	g_autoptr(GDateTime) now = g_date_time_new_now_utc();
	g_autofree char *time = g_date_time_format_iso8601(now);
	char *event = g_strdup_printf("%s %.*s\n", time, EVENT_BYTES_MAX, message);
	struct event *place;

	LOCK_GUARD(&events_lock);
	place = &events[events_seen++ % LOG_EVENTS];
	g_free(place->line);
	*place = (struct event){event, priority};
}

char *log_events(void)
{
	GString *text = g_string_new(NULL);

	lock_take(&events_lock);
	for (uint64_t i = events_seen > LOG_EVENTS ? events_seen - LOG_EVENTS : 0; i < events_seen; i++)
		g_string_append(text, events[i % LOG_EVENTS].line);
	lock_let_go(&events_lock);
	return g_string_free(text, FALSE);
}

/* LABEL stands between the program's name and the message. */
static void log_line(int priority, bool is_event, const char *label, const char *format, va_list args)
{
	int saved = errno;
	g_autofree char *text = g_strdup_vprintf(format, args);
	GString *line = g_string_new(atomic_load_explicit(&program, memory_order_relaxed));
	size_t start;

	g_string_append(line, ": ");
	start = line->len;
	g_string_append(line, label);
	append_escaped(line, text);
	if (is_event)
		keep_event(priority, line->str + start);
	if (atomic_load_explicit(&to_syslog, memory_order_relaxed))
		syslog(priority, "%s", line->str + start);
	g_string_append_c(line, '\n');
	write_line(line);
	g_string_free(line, TRUE);
	errno = saved;
}

/* ---- What repeats ------------------------------------------------------------ */

#define REPEAT_NS (60 * (int64_t)NS_PER_S)
/* Objects and kinds that are remembered; the one heard of longest ago goes. */
#define REPEATS_MAX 64

struct repeat {
	char *key;
	int64_t said_ns;
	unsigned suppressed; /* since then */
};

static struct lock repeats_lock = LOCK_INIT(LOCK_RANK_REPEATS);
static struct repeat repeats[REPEATS_MAX];

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * (int64_t)NS_PER_S + now.tv_nsec;
}

/* KEY's, or one that it may have. */
static struct repeat *find_repeat_locked(const char *key)
{
	struct repeat *oldest = &repeats[0];

	lock_assert_mine(&repeats_lock);
	for (unsigned i = 0; i < REPEATS_MAX; i++) {
		struct repeat *repeat = &repeats[i];

		if (!repeat->key || strcmp(repeat->key, key) == 0)
			return repeat;
		if (repeat->said_ns < oldest->said_ns)
			oldest = repeat;
	}
	return oldest;
}

/* False: it was said less than a minute ago. *SUPPRESSED: how often since then. */
static bool may_say(const char *key, unsigned *suppressed)
{
	int64_t now = now_ns();
	struct repeat *repeat;
	bool known, may;

	LOCK_GUARD(&repeats_lock);
	repeat = find_repeat_locked(key);
	known = repeat->key && strcmp(repeat->key, key) == 0;
	may = !known || now - repeat->said_ns >= REPEAT_NS;
	*suppressed = known ? repeat->suppressed : 0;
	if (!known) {
		g_free(repeat->key);
		repeat->key = g_strdup(key);
	}
	repeat->suppressed = may ? 0 : *suppressed + 1;
	repeat->said_ns = may ? now : repeat->said_ns;
	return may;
}

void log_warning_limited(const char *object, const char *kind, const char *format, ...)
{
	g_autofree char *key = g_strconcat(kind, " ", object, NULL);
	g_autofree char *text = NULL;
	unsigned suppressed;
	va_list args;

	if (!may_say(key, &suppressed))
		return;
	va_start(args, format);
	text = g_strdup_vprintf(format, args);
	va_end(args);
	if (suppressed)
		log_warning("%s (and %u more like it before)", text, suppressed);
	else
		log_warning("%s", text);
}

/* ---- The program, modules, levels ---------------------------------------------- */

void log_set_program(const char *name)
{
	atomic_store(&program, name);
}

/* An event's line begins with its time, which syslog has its own of. */
void log_use_syslog(void)
{
	openlog(atomic_load(&program), LOG_PID, LOG_DAEMON);
	LOCK_GUARD(&events_lock);
	for (uint64_t i = 0; i < MIN(events_seen, LOG_EVENTS); i++) {
		const char *message = strchr(events[i].line, ' ') + 1;

		syslog(events[i].priority, "%.*s", (int)strlen(message) - 1, message);
	}
	atomic_store(&to_syslog, true);
}

static bool refuse_debug(const char *word, GError **error)
{
	return error_set(error, EINVAL,
			 "\"%s\" is no module of debug messages; expected one of %sor all, each with =1 or =2 for its "
			 "level if it is to have one",
			 word, LOG_MODULE_WORDS);
}

/* "disk=2", "all". */
static bool read_word(const char *word, unsigned char levels[LOG_MODULES], GError **error)
{
	g_auto(GStrv) parts = g_strsplit(word, "=", 2);
	const char *name = parts[0] ? parts[0] : "";
	const char *level = parts[0] && parts[1] ? parts[1] : "1";
	bool known = false;

	for (unsigned i = 0; i < LOG_MODULES; i++) {
		if (strcmp(name, "all") != 0 && strcmp(name, module_names[i]) != 0)
			continue;
		levels[i] = (unsigned char)(*level - '0');
		known = true;
	}
	if (!known || (strcmp(level, "1") != 0 && strcmp(level, "2") != 0))
		return refuse_debug(word, error);
	return true;
}

bool log_set_debug(const char *spec, GError **error)
{
	g_auto(GStrv) words = g_strsplit_set(spec, ",:", -1);
	unsigned char levels[LOG_MODULES] = {0};

	for (char **word = words; *word; word++)
		if (!read_word(g_strstrip(*word), levels, error))
			return false;
	for (unsigned i = 0; i < LOG_MODULES; i++)
		atomic_store(&log_debug_levels[i], levels[i]);
	return true;
}

void log_error(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_line(LOG_ERR, true, "error: ", format, args);
	va_end(args);
}

void log_warning(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_line(LOG_WARNING, true, "warning: ", format, args);
	va_end(args);
}

void log_info(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_line(LOG_INFO, false, "", format, args);
	va_end(args);
}

void log_event(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_line(LOG_INFO, true, "", format, args);
	va_end(args);
}

void log_debug_always(enum log_module module, const char *format, ...)
{
	char label[32];
	va_list args;

	g_snprintf(label, sizeof(label), "debug: %s: ", module_names[module]);
	va_start(args, format);
	log_line(LOG_DEBUG, false, label, format, args);
	va_end(args);
}
