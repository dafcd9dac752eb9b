/* leafctl resize: of an image, or of a file in a mount, whose daemon does it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client.h"
#include "core/error.h"
#include "core/nearest.h"
#include "mounted.h"
#include "report.h"
#include "verbs.h"

/* Of the leaf; its parents need not be there. */
static bool image_size(const struct ctl_arguments *arguments, uint64_t *bytes, GError **error)
{
	g_autoptr(GError) inner = NULL;
	g_autoptr(GPtrArray) layers = offline_info(arguments->names[0], arguments->format, arguments->layers, &inner);

	if (!layers || layers->len == 0) {
		g_propagate_error(error, g_steal_pointer(&inner));
		return false;
	}
	*bytes = ((struct offline_layer *)layers->pdata[0])->size_bytes;
	return true;
}

static bool file_size(const char *path, uint64_t *bytes, GError **error)
{
	struct stat st;

	if (stat(path, &st) != 0) {
		error_set_errno(error, errno, "cannot look at %s", path);
		nearest_add_file(path, error);
		return false;
	}
	if (!S_ISREG(st.st_mode))
		return error_set(error, EINVAL, "%s is no disk", path);
	*bytes = (uint64_t)st.st_size;
	return true;
}

/* TEXT is "SIZE", "+SIZE" or "-SIZE". What is wrong with it, or NULL. */
static const char *parse_new_size(const char *text, uint64_t *number, char *sign)
{
	*sign = *text == '+' || *text == '-' ? *text : '\0';
	return ctl_size_fault(text + (*sign != '\0'), number);
}

static bool add_size(uint64_t present, char sign, uint64_t number, uint64_t *bytes, GError **error)
{
	*bytes = number;
	if (sign == '+' && __builtin_add_overflow(present, number, bytes))
		return error_set(error, EFBIG, "the new size is too large");
	if (sign == '-' && __builtin_sub_overflow(present, number, bytes))
		return error_set(error, EINVAL, "the disk has %" PRIu64 " bytes, %" PRIu64 " cannot be taken off",
				 present, number);
	if (*bytes > INT64_MAX)
		return error_set(error, EFBIG, "the new size is too large");
	return true;
}

/* The daemon says why where it refuses. The kernel learns of the new size, and drops its pages behind it. */
static bool resize_closed_file(const struct mounted *mount, const char *path, uint64_t bytes, GError **error)
{
	g_autofree char *text = g_strdup_printf("%" PRIu64, bytes);
	struct statx stx;

	if (!control_command(mount, CONTROL_DISK_SIZE, mount->name, text, error))
		return false;
	(void)statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_SIZE, &stx);
	return true;
}

/* Who may not ask the daemon does not know. */
static bool is_known_closed(const struct mounted *mount)
{
	g_auto(control_status) status = {0};

	return control_read_status(mount, mount->name, &status, NULL) && status.opens == 0;
}

static bool resize_file(const struct mounted *mount, const struct ctl_arguments *arguments, uint64_t present,
			uint64_t bytes, GError **error)
{
	const char *path = arguments->names[0];
	g_autoptr(GError) inner = NULL;

	if (!offline_size_is_allowed(path, bytes, error))
		return false;
	if (bytes < present && !arguments->shrink)
		return error_set(error, EINVAL,
				 "%s has %" PRIu64 " bytes; making it smaller, %" PRIu64
				 " bytes, loses data and needs --shrink",
				 path, present, bytes);
	if (bytes < present)
		return resize_closed_file(mount, path, bytes, error);
	/* One that somebody opens meanwhile grows as one that is open. */
	if (is_known_closed(mount)) {
		if (resize_closed_file(mount, path, bytes, &inner))
			return true;
		if (error_to_errno(inner) != -EBUSY || is_known_closed(mount)) {
			g_propagate_error(error, g_steal_pointer(&inner));
			return false;
		}
	}
	return truncate(path, (off_t)bytes) == 0 || error_set_errno(error, errno, "cannot resize %s", path);
}

static bool resize(const struct ctl_arguments *arguments, char sign, uint64_t number, GError **error)
{
	const char *path = arguments->names[0];
	g_autoptr(mounted) mount = mounted_find(path);
	uint64_t present = 0;
	uint64_t bytes;

	if (mount ? !file_size(path, &present, error) : !image_size(arguments, &present, error))
		return false;
	if (!add_size(present, sign, number, &bytes, error))
		return false;
	if (mount)
		return resize_file(mount, arguments, present, bytes, error);
	return offline_resize(path, arguments->format, arguments->layers, bytes, arguments->shrink, error);
}

int ctl_resize(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	const char *text = arguments->names[1], *fault;
	uint64_t number;
	char sign;

	fault = parse_new_size(text, &number, &sign);
	if (fault)
		return ctl_usage_error(arguments->verb, "\"%s\" %s (like 10G, +1G or -1G)", text, fault);
	if (!resize(arguments, sign, number, &error))
		return ctl_fail_error(NULL, error);
	return CTL_DONE;
}
