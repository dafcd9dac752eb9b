/* What to say of files of other formats. */
#include "image/foreign.h"

#include <fcntl.h>
#include <unistd.h>

#include "aio/foreign.h"
#include "file.h"

static char *foreign_text(const struct foreign_format *foreign, const char *path, bool raw)
{
	g_autofree char *command = foreign_format_command(foreign, path);
	const char *name = foreign_format_name(foreign);

	if (foreign_format_is_raw(foreign))
		return raw ? NULL
			   : g_strdup_printf("is %s, a raw disk that is not named like one: \"%s\" has it shown", name,
					     command);
	if (raw)
		return g_strdup_printf("is taken for a raw disk, as its name says, and looks like %s: if it is, \"%s\" "
				       "makes a raw disk of it",
				       name, command);
	return g_strdup_printf("is %s, which is not opened here: \"%s\" makes a raw disk of it", name, command);
}

char *image_foreign_text(const char *path, enum image_format format)
{
	return image_foreign_text_fd(IMAGE_BY_PATH, path, format);
}

char *image_foreign_text_fd(int fd, const char *path, enum image_format format)
{
	const struct foreign_format *foreign;
	int readable = format == IMAGE_FORMAT_LEAF ? -1 : image_file_reopen(fd, path, O_RDONLY);

	if (readable < 0)
		return NULL;
	foreign = foreign_format_of(readable);
	close(readable);
	return foreign ? foreign_text(foreign, path, format == IMAGE_FORMAT_RAW) : NULL;
}
