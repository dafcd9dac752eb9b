/* Mount options that are not leafdisk's.
 *
 * A name that ends in "=" takes a value, one that ends in "-" is a prefix. */
#include "foreign.h"

#include <errno.h>
#include <string.h>

#include "core/error.h"
#include "core/nearest.h"
#include "options.h"

static const char *const passed_names[] = {
	"suid",		"nosuid",   "dev",	  "nodev",	 "exec",
	"noexec",	"sync",	    "async",	  "dirsync",	 "atime",
	"noatime",	"fsname=",  "subtype=",	  "allow_root",	 "default_permissions",
	"auto_unmount", "context=", "fscontext=", "defcontext=", "rootcontext=",
	NULL,
};

static const char *const dropped_names[] = {
	"rw",	    "defaults",	  "auto",	"noauto",      "nofail",     "user",	    "user=",
	"nouser",   "users",	  "owner",	"group",       "_netdev",    "x-",	    "X-",
	"comment=", "helper=",	  "uhelper=",	"relatime",    "norelatime", "strictatime", "nostrictatime",
	"diratime", "nodiratime", "lazytime",	"nolazytime",  "mand",	     "nomand",	    "silent",
	"loud",	    "iversion",	  "noiversion", "nosymfollow", "symfollow",  NULL,
};

static bool matches(const char *option, const char *name)
{
	size_t length = strlen(name);

	if (name[length - 1] == '=' || name[length - 1] == '-')
		return strncmp(option, name, length) == 0 && option[length] != '\0';
	return strcmp(option, name) == 0;
}

static bool is_in(const char *option, const char *const *names)
{
	for (; *names; names++)
		if (matches(option, *names))
			return true;
	return false;
}

static bool refuse(const char *option, GError **error)
{
	g_autofree char *name = g_strndup(option, strcspn(option, "=")), *text = NULL;
	struct nearest nearest;

	nearest_begin(&nearest, name);
	for (const struct config_key *key = mount_option_keys(); key->name; key++)
		nearest_offer(&nearest, key->name);
	for (const char *const *passed = passed_names; *passed; passed++)
		nearest_offer(&nearest, *passed);
	text = nearest_text(&nearest, "; leafdisk --help lists those that there are");
	return error_set(error, EINVAL, "unknown mount option \"%s\"%s", option, text);
}

static bool refuse_remount(GError **error)
{
	g_autoptr(GString) tunables = g_string_new(NULL);

	for (const struct config_key *key = disk_tunable_keys; key->name; key++)
		g_string_append_printf(tunables, "%s%s", key == disk_tunable_keys ? "" : ", ", key->name);
	return error_set(error, EINVAL,
			 "a leafdisk mount takes no new options by a remount; leafctl set MOUNTPOINT KEY=VALUE changes "
			 "these while it is in use: %s; leafctl mode FILE MODE a disk's mode; for all others unmount "
			 "it and mount it again",
			 tunables->str);
}

static bool take_option(const char *option, GString *passed, GError **error)
{
	if (is_in(option, dropped_names))
		return true;
	if (strcmp(option, "remount") == 0)
		return refuse_remount(error);
	if (!is_in(option, passed_names))
		return refuse(option, error);
	g_string_append_printf(passed, "%s%s", passed->len ? "," : "", option);
	return true;
}

static size_t option_length(const char *text)
{
	const char *p = text;

	while (*p && *p != ',')
		p += p[0] == '\\' && p[1] != '\0' ? 2 : 1;
	return (size_t)(p - text);
}

bool foreign_options(const char *list, char **passed, GError **error)
{
	g_autoptr(GString) text = g_string_new(NULL);

	*passed = NULL;
	while (*list) {
		size_t length = option_length(list);
		g_autofree char *option = g_strndup(list, length);

		if (length > 0 && !take_option(option, text, error))
			return false;
		list += length;
		if (*list == ',')
			list++;
	}
	if (text->len > 0)
		*passed = g_strdup(text->str);
	return true;
}

void foreign_help(GString *text)
{
	for (const char *const *name = passed_names; *name; name++)
		g_string_append_printf(text, "%s%s", name == passed_names ? "" : ", ", *name);
}
