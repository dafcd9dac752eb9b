/* leafctl drain, mode and set: what a running mount is told to do. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client.h"
#include "core/error.h"
#include "core/nearest.h"
#include "report.h"
#include "verbs.h"

/* ---- drain --------------------------------------------------------------- */

int ctl_drain(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(mounted) mount = control_find_whole_or_disk(arguments->names[0], &error);

	if (!mount ||
	    !control_command(mount, *mount->name ? CONTROL_DISK_DRAIN : CONTROL_DRAIN, mount->name, "1\n", &error))
		return ctl_fail_error(NULL, error);
	return CTL_DONE;
}

/* ---- mode ---------------------------------------------------------------- */

static int print_mode(const struct mounted *mount)
{
	g_autoptr(GError) error = NULL;
	g_autofree char *mode = control_read(mount, CONTROL_DISK_MODE, mount->name, &error);

	if (!mode)
		return ctl_fail_error(NULL, error);
	fputs(mode, stdout);
	return CTL_DONE;
}

int ctl_mode(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(mounted) mount = control_find_disk(arguments->names[0], &error);
	g_autofree char *line = NULL, *before = NULL;

	if (!mount)
		return ctl_fail_error(NULL, error);
	if (arguments->name_count == 1)
		return print_mode(mount);
	before = control_read(mount, CONTROL_DISK_MODE, mount->name, NULL);
	line = g_strconcat(arguments->names[1], "\n", NULL);
	if (!control_command(mount, CONTROL_DISK_MODE, mount->name, line, &error))
		return ctl_fail_error(NULL, error);
	if (strcmp(arguments->names[1], "ephemeral") == 0 && g_strcmp0(before, line) != 0)
		printf("what is written to it from now on is gone with the mount, unless leafctl keep makes an image "
		       "of "
		       "it\n");
	return CTL_DONE;
}

/* ---- set ----------------------------------------------------------------- */

static int list_tunables(const struct mounted *mount, const GPtrArray *names)
{
	for (unsigned i = 0; i < names->len; i++) {
		g_autoptr(GError) error = NULL;
		g_autofree char *value = control_read(mount, CONTROL_TUNABLE, names->pdata[i], &error);

		if (!value)
			return ctl_fail_error(NULL, error);
		printf("%s=%s\n", (const char *)names->pdata[i], g_strchomp(value));
	}
	return CTL_DONE;
}

static bool is_known(const GPtrArray *names, const char *key, GError **error)
{
	g_autoptr(GString) known = g_string_new("; known are: ");
	g_autofree char *text = NULL;
	struct nearest nearest;

	nearest_begin(&nearest, key);
	for (unsigned i = 0; i < names->len; i++) {
		if (strcmp(names->pdata[i], key) == 0)
			return true;
		g_string_append_printf(known, "%s%s", i ? ", " : "", (const char *)names->pdata[i]);
		nearest_offer(&nearest, names->pdata[i]);
	}
	text = nearest_text(&nearest, known->str);
	if (strcmp(key, "mode") == 0)
		return error_set(error, EINVAL, "\"mode\" is each disk's own: leafctl mode FILE MODE");
	return error_set(error, EINVAL, "\"%s\" cannot be set%s", key, text);
}

/* ASSIGNMENT is "KEY=VALUE". */
static bool set_tunable(const struct mounted *mount, const GPtrArray *names, const char *assignment, GError **error)
{
	const char *value = strchr(assignment, '=') + 1;
	g_autofree char *key = g_strndup(assignment, (gsize)(value - 1 - assignment));
	g_autofree char *line = g_strconcat(value, "\n", NULL);

	return is_known(names, key, error) && control_command(mount, CONTROL_TUNABLE, key, line, error);
}

int ctl_set(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(mounted) mount = NULL;
	g_autoptr(GPtrArray) names = NULL;

	for (int i = 1; i < arguments->name_count; i++)
		if (!strchr(arguments->names[i], '='))
			return ctl_usage_error(arguments->verb, "\"%s\" is not KEY=VALUE", arguments->names[i]);
	mount = control_find_whole(arguments->names[0], &error);
	names = mount ? control_tunables(mount, &error) : NULL;
	if (!names)
		return ctl_fail_error(NULL, error);
	if (arguments->name_count == 1)
		return list_tunables(mount, names);
	for (int i = 1; i < arguments->name_count; i++)
		if (!set_tunable(mount, names, arguments->names[i], &error))
			return ctl_fail_error(NULL, error);
	return CTL_DONE;
}
