/* leafctl convert: a chain's content into one new image.
 *
 * A source that is a file in a mount is read there, as a raw disk: its image is
 * the daemon's. An interrupt only sets a flag, which stops the copy at the next
 * progress call; the library removes the destination then. */
#include <stdio.h>
#include <unistd.h>

#include "core/config.h"
#include "report.h"
#include "verbs.h"
#include "interrupt.h"
#include "mounted.h"

#define PROGRESS_INTERVAL_US (G_USEC_PER_SEC / 5)

struct progress {
	bool shown; /* standard error is a terminal */
	gint64 next_us;
};

static void print_progress(uint64_t done_bytes, uint64_t total_bytes)
{
	g_autofree char *done = config_format_size(done_bytes);
	g_autofree char *total = config_format_size(total_bytes);
	double percent = total_bytes ? 100.0 * (double)done_bytes / (double)total_bytes : 100.0;

	fprintf(stderr, "\r\033[K%5.1f %%  %s of %s", percent, done, total);
}

static bool progress_cb(void *opaque, uint64_t done_bytes, uint64_t total_bytes)
{
	struct progress *progress = opaque;
	gint64 now_us = g_get_monotonic_time();

	if (progress->shown && now_us >= progress->next_us) {
		print_progress(done_bytes, total_bytes);
		progress->next_us = now_us + PROGRESS_INTERVAL_US;
	}
	return interrupt_signal() == 0;
}

static bool convert(const struct ctl_arguments *arguments, struct progress *progress, GError **error)
{
	g_autoptr(mounted) mount = mounted_find(arguments->names[0]);
	enum image_format format = mount ? IMAGE_FORMAT_RAW : arguments->format;

	struct offline_convert_options options = {
		.format = arguments->output_format,
		.layers = arguments->layers,
		.force = arguments->force,
		.progress = progress_cb,
		.opaque = progress,
	};

	ctl_warn_owner(arguments->names[0]);
	return mounted_allow_new(arguments->names[1], error) &&
	       offline_convert(arguments->names[0], format, arguments->names[1], &options, error);
}

int ctl_convert(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	struct progress progress = {.shown = isatty(STDERR_FILENO)};
	bool done;

	interrupt_catch();
	done = convert(arguments, &progress, &error);
	if (progress.next_us)
		fputs("\r\033[K", stderr);
	if (done)
		return CTL_DONE;
	if (interrupt_signal())
		return ctl_fail("stopped by signal %d; %s was not made, the command can be run again",
				interrupt_signal(), arguments->names[1]);
	return ctl_fail_error(NULL, error);
}
