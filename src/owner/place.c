/* Where the record of an image is, from the image's path. */
#include <stdlib.h>
#include <sys/stat.h>

#include "owner/owner.h"

bool owner_place_init(struct owner_place *place, const char *path)
{
	char *resolved = realpath(path, NULL);
	struct stat st;

	*place = (struct owner_place){0};
	if (resolved && stat(resolved, &st) == 0 && !S_ISBLK(st.st_mode))
		*place = (struct owner_place){g_path_get_dirname(resolved), g_path_get_basename(resolved)};
	free(resolved);
	return place->name;
}

void owner_place_clear(struct owner_place *place)
{
	g_clear_pointer(&place->pool, g_free);
	g_clear_pointer(&place->name, g_free);
}
