/* What a device is mounted on, from the kernel's table of mounts: proc_pid_mountinfo(5). */
#include "aio/mount_point.h"

#include <glib.h>
#include <string.h>

/* The source's numbers are the third word of a line of mountinfo, the mount point is the fifth. */
char *mount_point_of(const char *numbers)
{
	g_autofree char *table = NULL;
	g_auto(GStrv) lines = NULL;

	if (!g_file_get_contents("/proc/self/mountinfo", &table, NULL, NULL))
		return NULL;
	lines = g_strsplit(table, "\n", -1);
	for (char **line = lines; *line; line++) {
		g_auto(GStrv) words = g_strsplit(*line, " ", 6);

		if (g_strv_length(words) == 6 && strcmp(words[2], numbers) == 0)
			return g_strcompress(words[4]);
	}
	return NULL;
}
