/* leafctl convert: a chain's content into one new image.
 *
 * A source that is a file in a mount is read there, as a raw disk: its image is
 * the daemon's. An interrupt only sets a flag, which stops the copy at the next
 * progress call; the library removes the destination then. */
#include "drain_progress.h"
#include "report.h"
#include "verbs.h"
#include "interrupt.h"
#include "mounted.h"

static bool progress_cb(void *opaque, uint64_t done_bytes, uint64_t total_bytes)
{
	drain_progress_show_of(opaque, done_bytes, total_bytes);
	return interrupt_signal() == 0;
}

static bool convert(const struct ctl_arguments *arguments, struct drain_progress *progress, GError **error)
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

	if (!mount)
		ctl_warn_owner(arguments->names[0], arguments->layers);
	return mounted_allow_new(arguments->names[1], error) &&
	       offline_convert(arguments->names[0], format, arguments->names[1], &options, error);
}

int ctl_convert(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	struct drain_progress progress;
	bool done;

	drain_progress_begin(&progress);
	interrupt_catch();
	done = convert(arguments, &progress, &error);
	drain_progress_end(&progress);
	if (done)
		return CTL_DONE;
	if (interrupt_signal())
		return ctl_fail("stopped by signal %d; %s was not made, the command can be run again",
				interrupt_signal(), arguments->names[1]);
	return ctl_fail_error(NULL, error);
}
