/* leafctl unlock: gives an image free that somebody else left owned. */
#include <stdio.h>

#include "report.h"
#include "verbs.h"
#include "mounted.h"

int ctl_unlock(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(mounted) mount = mounted_find(arguments->names[0]);
	const char *pool = mount ? mount->pool : arguments->names[0];
	g_autofree char *report = offline_unlock(pool, arguments->names[1], arguments->force, &error);
	g_autofree char *printable = report ? ctl_printable(report) : NULL;

	if (!report)
		return ctl_fail_error(NULL, error);
	puts(printable);
	return CTL_DONE;
}
