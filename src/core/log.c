/* Messages to standard error and syslog.
 *
 * A line is built whole and handed to the kernel by one write, so lines of
 * several threads do not mix. What a message quotes (a file name, a remote
 * server's words) may hold newlines or terminal escapes: everything that is
 * not plain printable text is shown as a backslash sequence. errno survives
 * every call. */
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

/* SUBJECT NULL: it is no event. */
struct subject {
	enum event_severity severity;
	const char *disk; /* NULL: none */
};

static const int priorities[] = {[EVENT_INFO] = LOG_INFO, [EVENT_WARNING] = LOG_WARNING, [EVENT_ERROR] = LOG_ERR};
static const char *const labels[] = {[EVENT_INFO] = "", [EVENT_WARNING] = "warning: ", [EVENT_ERROR] = "error: "};

/* LABEL stands between the program's name and the message. */
static void log_line(int priority, const struct subject *subject, const char *label, const char *format, va_list args)
{
	int saved = errno;
	g_autofree char *text = g_strdup_vprintf(format, args);
	GString *line = g_string_new(atomic_load_explicit(&program, memory_order_relaxed));
	size_t start, message;

	g_string_append(line, ": ");
	start = line->len;
	g_string_append(line, label);
	message = line->len;
	append_escaped(line, text);
	if (subject)
		events_add(subject->severity, subject->disk, line->str + message);
	if (atomic_load_explicit(&to_syslog, memory_order_relaxed))
		syslog(priority, "%s", line->str + start);
	g_string_append_c(line, '\n');
	write_line(line);
	g_string_free(line, TRUE);
	errno = saved;
}

static void log_subject(enum event_severity severity, const char *disk, const char *format, va_list args)
{
	struct subject subject = {severity, disk};

	log_line(priorities[severity], &subject, labels[severity], format, args);
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

/* DISK NULL: it is about none. What is not said may have changed something all the same. */
static void warn_limited(const char *disk, const char *object, const char *kind, const char *format, va_list args)
{
	g_autofree char *key = g_strconcat(kind, " ", object, NULL);
	g_autofree char *text = NULL;
	unsigned suppressed;

	if (!may_say(key, &suppressed)) {
		events_stir();
		return;
	}
	text = g_strdup_vprintf(format, args);
	if (suppressed)
		log_disk(EVENT_WARNING, disk, "%s (and %u more like it before)", text, suppressed);
	else
		log_disk(EVENT_WARNING, disk, "%s", text);
}

void log_warning_limited(const char *object, const char *kind, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	warn_limited(NULL, object, kind, format, args);
	va_end(args);
}

void log_disk_limited(const char *disk, const char *kind, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	warn_limited(disk, disk, kind, format, args);
	va_end(args);
}

/* ---- The program, modules, levels ---------------------------------------------- */

void log_set_program(const char *name)
{
	atomic_store(&program, name);
}

static void tell_syslog(const struct event *event)
{
	syslog(priorities[event->severity], "%s%s", labels[event->severity], event->message);
}

void log_use_syslog(void)
{
	openlog(atomic_load(&program), LOG_PID, LOG_DAEMON);
	events_each(tell_syslog);
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
	log_subject(EVENT_ERROR, NULL, format, args);
	va_end(args);
}

void log_warning(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_subject(EVENT_WARNING, NULL, format, args);
	va_end(args);
}

void log_info(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_line(LOG_INFO, NULL, "", format, args);
	va_end(args);
}

void log_event(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_subject(EVENT_INFO, NULL, format, args);
	va_end(args);
}

void log_disk(enum event_severity severity, const char *disk, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_subject(severity, disk, format, args);
	va_end(args);
}

void log_event_only(enum event_severity severity, const char *disk, const char *format, ...)
{
	g_autofree char *text = NULL;
	g_autoptr(GString) line = g_string_new(NULL);
	va_list args;

	va_start(args, format);
	text = g_strdup_vprintf(format, args);
	va_end(args);
	append_escaped(line, text);
	events_add(severity, disk, line->str);
}

void log_debug_always(enum log_module module, const char *format, ...)
{
	char label[32];
	va_list args;

	g_snprintf(label, sizeof(label), "debug: %s: ", module_names[module]);
	va_start(args, format);
	log_line(LOG_DEBUG, NULL, label, format, args);
	va_end(args);
}
