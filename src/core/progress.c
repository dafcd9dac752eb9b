/* How far a write-back has come.
 *
 * The rate is the mean since the start, or since the last time that more was
 * dirty than before: others go on writing meanwhile. */
#include "core/progress.h"

#include <glib.h>

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

char *progress_line(struct progress *progress, uint64_t left_bytes)
{
	g_autofree char *left = NULL;
	g_autofree char *rate = NULL;
	uint64_t now_ns = loop_now_ns();
	double seconds;

	if (progress->since_ns == 0)
		progress->next_ns = now_ns + progress->interval_ns;
	if (progress->since_ns == 0 || left_bytes > progress->since_bytes)
		begin(progress, now_ns, left_bytes);
	if (now_ns < progress->next_ns)
		return NULL;
	progress->next_ns = now_ns + progress->interval_ns;
	seconds = (double)(now_ns - progress->since_ns) / (double)NS_PER_S;
	left = config_format_size(left_bytes);
	rate = config_format_size(seconds > 0 ? (uint64_t)((double)(progress->since_bytes - left_bytes) / seconds) : 0);
	return g_strdup_printf("%s left to write back, %s/s", left, rate);
}
