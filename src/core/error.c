/* The GError domain, and its way back to a negative errno. */
#include "core/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <sys/resource.h>

G_DEFINE_QUARK(leafdisk - error - quark, leafdisk_error)

static const struct limit {
	int errnum;
	int resource;
	const char *what;
} limits[] = {
	{EMFILE, RLIMIT_NOFILE, "files open at once; ulimit -n, or LimitNOFILE= of its unit"},
	{EFBIG, RLIMIT_FSIZE, "bytes in a file; ulimit -f, or LimitFSIZE= of its unit"},
	{ENOMEM, RLIMIT_AS, "bytes of memory; ulimit -v, or LimitAS= of its unit"},
	{0},
};

bool error_set(GError **error, int errnum, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (error)
		*error = g_error_new_valist(LEAFDISK_ERROR, errnum, format, args);
	va_end(args);
	return false;
}

/* "" when ERRNUM has nothing to do with a limit, or there is none. */
static char *explain_limit(int errnum)
{
	struct rlimit value;

	for (const struct limit *limit = limits; limit->errnum; limit++)
		if (limit->errnum == errnum && getrlimit(limit->resource, &value) == 0 &&
		    value.rlim_cur != RLIM_INFINITY)
			return g_strdup_printf(" (this process may have %" PRIu64 " %s)", (uint64_t)value.rlim_cur,
					       limit->what);
	return g_strdup("");
}

bool error_set_errno(GError **error, int errnum, const char *format, ...)
{
	g_autofree char *sentence = NULL, *limit = explain_limit(errnum);
	va_list args;

	va_start(args, format);
	sentence = g_strdup_vprintf(format, args);
	va_end(args);
	return error_set(error, errnum, "%s: %s%s", sentence, g_strerror(errnum), limit);
}

int error_to_errno(const GError *error)
{
	if (!error || error->domain != LEAFDISK_ERROR || error->code <= 0)
		return -EIO;
	return -error->code;
}
