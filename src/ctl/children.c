/* leafctl forget-child and rebase: what is over between parents and children. */
#include "report.h"
#include "verbs.h"
#include "mounted.h"

int ctl_forget_child(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	g_autofree char *parent = mounted_image_path(arguments->names[0], arguments->layers, &error);

	if (parent && offline_forget_child(parent, arguments->format, arguments->names[1], arguments->force, &error))
		return CTL_DONE;
	return ctl_fail_error(NULL, error);
}

static bool accept_parent(const char *path, const char *layers, GError **error)
{
	g_autofree char *image = mounted_image_path(path, layers, error), *note = NULL;
	bool good = image && offline_accept_parent(image, layers, &note, error);

	if (note)
		ctl_fail("warning: %s", note);
	return good;
}

int ctl_rebase(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;

	if (!arguments->accept)
		return ctl_usage_error(arguments->verb, "only --accept is in this version");
	for (int i = 0; i < arguments->name_count; i++)
		if (!accept_parent(arguments->names[i], arguments->layers, &error))
			return ctl_fail_error(NULL, error);
	return CTL_DONE;
}
