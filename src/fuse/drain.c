/* The end of a mount: what is dirty is written back to the pool.
 *
 * By then nobody can reach the mount any more, whichever way it ended, so what
 * is dirty only becomes less. Whatever stays behind is safe in the cache, and
 * the next mount goes on with it. */
#include "drain.h"

#include <stdio.h>
#include <unistd.h>

#include "fuse/control/files.h"
#include "core/config.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/time.h"
#include "end.h"
#include "notify.h"

#define TERMINAL_INTERVAL_NS (NS_PER_S / 5)
#define LOG_INTERVAL_NS (5 * NS_PER_S)

struct drain {
	struct end *end;
	uint64_t left_bytes; /* when last asked */
	bool on_terminal;
	bool shown; /* a line stands on the terminal */
	struct progress progress;
};

static void show(struct drain *drain, uint64_t left_bytes)
{
	g_autofree char *line = progress_line(&drain->progress, left_bytes);

	if (!line)
		return;
	if (drain->on_terminal)
		fprintf(stderr, "\r\033[K%s", line);
	else
		log_info("%s", line);
	notify_status(line);
	drain->shown = drain->on_terminal;
}

static void clear_line(struct drain *drain)
{
	if (drain->shown)
		fputs("\r\033[K", stderr);
	drain->shown = false;
}

static bool go_on(void *opaque, uint64_t left_bytes)
{
	struct drain *drain = opaque;
	bool given_up = end_is_given_up(drain->end);

	if (left_bytes < drain->left_bytes)
		end_note_progress(drain->end);
	drain->left_bytes = left_bytes;
	if (!given_up)
		show(drain, left_bytes);
	return !given_up;
}

void drain_is_left(struct session *session)
{
	uint64_t dirty_bytes = control_has_cache(session) ? control_dirty_bytes(session) : 0;
	g_autofree char *size = config_format_size(dirty_bytes);
	g_autofree char *cache = g_shell_quote(session->options->cache ? session->options->cache : "CACHE");

	if (dirty_bytes > 0)
		log_warning(
			"%s of changes stay in the cache (nodrain): the next mount with it goes on with them, and so "
			"does leafctl cache drain %s",
			size, cache);
}

bool drain_at_end(struct session *session)
{
	g_autoptr(GError) error = NULL;
	uint64_t dirty_bytes;
	struct drain drain = {
		.end = session->end,
		.on_terminal = session->options->foreground && isatty(STDERR_FILENO),
	};
	bool done;

	if (!control_has_cache(session))
		return true;
	dirty_bytes = control_dirty_bytes(session);
	if (dirty_bytes > 0)
		notify_status("What is only in the cache is written back to the pool");
	progress_init(&drain.progress, drain.on_terminal ? TERMINAL_INTERVAL_NS : LOG_INTERVAL_NS);
	done = disk_pool_drain(session->pool, go_on, &drain, &error);
	clear_line(&drain);
	if (!done)
		log_error("%s", error->message);
	else if (dirty_bytes > 0)
		log_info("all changes are in the pool");
	return done;
}
