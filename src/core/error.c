/* The GError domain, and its way back to a negative errno. */
#include "core/error.h"

#include <errno.h>
#include <stdarg.h>

G_DEFINE_QUARK(leafdisk - error - quark, leafdisk_error)

bool error_set(GError **error, int errnum, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (error)
		*error = g_error_new_valist(LEAFDISK_ERROR, errnum, format, args);
	va_end(args);
	return false;
}

bool error_set_errno(GError **error, int errnum, const char *format, ...)
{
	g_autofree char *sentence = NULL;
	va_list args;

	va_start(args, format);
	sentence = g_strdup_vprintf(format, args);
	va_end(args);
	return error_set(error, errnum, "%s: %s", sentence, g_strerror(errnum));
}

int error_to_errno(const GError *error)
{
	if (!error || error->domain != LEAFDISK_ERROR || error->code <= 0)
		return -EIO;
	return -error->code;
}
