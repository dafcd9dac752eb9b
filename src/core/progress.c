/* How far long work has come.
 *
 * The rate is the mean since the start, or since the last time that more was
 * dirty than before: others go on writing meanwhile. */
#include "core/progress.h"

#include <glib.h>
#include <stdbool.h>

#include "core/config.h"
#include "core/loop.h"
#include "core/time.h"

void progress_init(struct progress *progress, uint64_t interval_ns)
{
	*progress = (struct progress){.interval_ns = interval_ns};
}

static void begin(struct progress *progress, uint64_t now_ns, uint64_t left_bytes)
{
	progress->since_ns = now_ns;
	progress->since_bytes = left_bytes;
}

/* True: a line is due now. */
static bool take(struct progress *progress, uint64_t now_ns, uint64_t left_bytes)
{
	if (progress->since_ns == 0)
		progress->next_ns = now_ns + progress->interval_ns;
	if (progress->since_ns == 0 || left_bytes > progress->since_bytes)
		begin(progress, now_ns, left_bytes);
	if (now_ns < progress->next_ns)
		return false;
	progress->next_ns = now_ns + progress->interval_ns;
	return true;
}

static char *time_text(double seconds)
{
	if (seconds < 90)
		return g_strdup_printf(", %.0f s to go", seconds);
	if (seconds < 90 * 60)
		return g_strdup_printf(", %.0f min to go", seconds / 60);
	return g_strdup_printf(", %.0f h to go", MIN(seconds / 3600, 999));
}

/* "120 MiB/s, 13 s to go". */
static char *pace_text(const struct progress *progress, uint64_t now_ns, uint64_t left_bytes)
{
	double seconds = (double)(now_ns - progress->since_ns) / (double)NS_PER_S;
	double rate = seconds > 0 ? (double)(progress->since_bytes - left_bytes) / seconds : 0;
	g_autofree char *each = config_format_size((uint64_t)rate);
	g_autofree char *left = rate >= 1 && left_bytes ? time_text((double)left_bytes / rate) : g_strdup("");

	return g_strdup_printf("%s/s%s", each, left);
}

char *progress_line(struct progress *progress, uint64_t left_bytes)
{
	g_autofree char *left = NULL, *pace = NULL;
	uint64_t now_ns = loop_now_ns();

	if (!take(progress, now_ns, left_bytes))
		return NULL;
	left = config_format_size(left_bytes);
	pace = pace_text(progress, now_ns, left_bytes);
	return g_strdup_printf("%s left to write back, %s", left, pace);
}

char *progress_line_of(struct progress *progress, uint64_t done_bytes, uint64_t total_bytes)
{
	g_autofree char *done = NULL, *total = NULL, *pace = NULL;
	uint64_t now_ns = loop_now_ns(), left_bytes = total_bytes - MIN(done_bytes, total_bytes);

	if (!take(progress, now_ns, left_bytes))
		return NULL;
	done = config_format_size(done_bytes);
	total = config_format_size(total_bytes);
	pace = pace_text(progress, now_ns, left_bytes);
	return g_strdup_printf("%5.1f %%  %s of %s, %s",
			       total_bytes ? 100.0 * (double)done_bytes / (double)total_bytes : 100.0, done, total,
			       pace);
}
