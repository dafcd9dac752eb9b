/* The modes' names. */
#include <string.h>

#include "disk/disk.h"

const char disk_mode_names[] = "direct|persistent|ephemeral|writeback";

const char *disk_mode_name(enum disk_mode mode)
{
	static const char *const names[] = {"direct", "persistent", "ephemeral", "writeback"};

	return names[mode];
}

bool disk_mode_from_name(const char *text, enum disk_mode *mode)
{
	for (*mode = DISK_MODE_DIRECT; *mode <= DISK_MODE_WRITEBACK; (*mode)++)
		if (strcmp(text, disk_mode_name(*mode)) == 0)
			return true;
	return false;
}
