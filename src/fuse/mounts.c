/* The kernel's table of mounts: /proc/self/mountinfo (proc(5)).
 *
 * A line: id, parent, major:minor, root, mountpoint, options, optional fields,
 * "-", type, source, super options; blanks inside a field are octal escapes. */
#include "mounts.h"

#include <glib.h>
#include <stdio.h>
#include <string.h>

enum { FIELD_DEVICE = 2, FIELD_MOUNTPOINT = 4, FIELDS_FIXED = 6 };

static bool is_mounted_on(char **fields, const char *path)
{
	g_autofree char *mountpoint = NULL;

	if (g_strv_length(fields) < FIELDS_FIXED)
		return false;
	mountpoint = g_strcompress(fields[FIELD_MOUNTPOINT]);
	return strcmp(mountpoint, path) == 0;
}

static bool fill_entry(char **fields, struct mount_entry *entry)
{
	char **rest = fields + FIELDS_FIXED;

	while (*rest && strcmp(*rest, "-") != 0)
		rest++;
	if (g_strv_length(rest) < 3 || sscanf(fields[FIELD_DEVICE], "%u:%u", &entry->major, &entry->minor) != 2)
		return false;
	mount_entry_clear(entry);
	entry->type = g_strcompress(rest[1]);
	entry->source = g_strcompress(rest[2]);
	return true;
}

bool mounts_find(const char *path, struct mount_entry *entry)
{
	g_autofree char *table = NULL;
	g_auto(GStrv) lines = NULL;
	bool found = false;

	*entry = (struct mount_entry){0};
	if (!g_file_get_contents("/proc/self/mountinfo", &table, NULL, NULL))
		return false;
	lines = g_strsplit(table, "\n", -1);
	for (char **line = lines; *line; line++) {
		g_auto(GStrv) fields = g_strsplit(*line, " ", -1);

		if (is_mounted_on(fields, path) && fill_entry(fields, entry))
			found = true;
	}
	return found;
}

enum answer mounts_look(unsigned major, unsigned minor, char **point)
{
	g_autofree char *table = NULL, *device = g_strdup_printf("%u:%u", major, minor), *found = NULL;
	g_auto(GStrv) lines = NULL;

	if (!g_file_get_contents("/proc/self/mountinfo", &table, NULL, NULL))
		return ANSWER_UNKNOWN;
	lines = g_strsplit(table, "\n", -1);
	for (char **line = lines; *line; line++) {
		g_auto(GStrv) fields = g_strsplit(*line, " ", FIELDS_FIXED);

		if (g_strv_length(fields) < FIELDS_FIXED || strcmp(fields[FIELD_DEVICE], device) != 0)
			continue;
		g_free(found);
		found = g_strcompress(fields[FIELD_MOUNTPOINT]);
	}
	if (!found)
		return ANSWER_NO;
	if (point)
		*point = g_steal_pointer(&found);
	return ANSWER_YES;
}

void mount_entry_clear(struct mount_entry *entry)
{
	g_clear_pointer(&entry->type, g_free);
	g_clear_pointer(&entry->source, g_free);
}
