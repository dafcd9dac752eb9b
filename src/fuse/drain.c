/* The end of a mount: what is dirty is written back to the pool.
 *
 * By then nobody can reach the mount any more, whichever way it ended, so what
 * is dirty only becomes less. Whatever stays behind is safe in the cache, and
 * the next mount goes on with it. */
#include "drain.h"

#include <unistd.h>

#include "fuse/control/files.h"
#include "core/config.h"
#include "core/log.h"
#include "end.h"
#include "line.h"
#include "notify.h"
#include "rest.h"

struct drain {
	struct session *session;
	uint64_t left_bytes; /* when last asked */
	struct line line;
};

static void show(struct drain *drain, uint64_t left_bytes)
{
	g_autofree char *text = line_show(&drain->line, left_bytes);

	if (text)
		notify_status(text);
}

static bool go_on(void *opaque, uint64_t left_bytes)
{
	struct drain *drain = opaque;
	bool given_up = end_is_given_up(drain->session->end);

	if (left_bytes < drain->left_bytes)
		end_note_progress(drain->session->end);
	drain->left_bytes = left_bytes;
	rest_tell_left(drain->session->rest_fd, (int64_t)left_bytes);
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
	struct drain drain = {.session = session};
	bool done;

	if (!control_has_cache(session))
		return true;
	dirty_bytes = control_dirty_bytes(session);
	if (dirty_bytes > 0)
		notify_status("What is only in the cache is written back to the pool");
	line_begin(&drain.line, "", session->options->foreground && isatty(STDERR_FILENO));
	done = disk_pool_drain(session->pool, go_on, &drain, &error);
	line_end(&drain.line);
	if (!done)
		log_error("%s", error->message);
	else if (dirty_bytes > 0)
		log_info("all changes are in the pool");
	return done;
}
