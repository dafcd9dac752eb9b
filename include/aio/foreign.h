/* Formats in which disks come and that are not opened here: known, so that they can be named. */
#ifndef LEAFDISK_AIO_FOREIGN_H
#define LEAFDISK_AIO_FOREIGN_H

#include <stdbool.h>

struct foreign_format;

/* By what stands in the file that FD is open on to be read; NULL: none of them. What cannot be read
 * is none. Blocks. */
const struct foreign_format *foreign_format_of(int fd);
/* By the ending of PATH. */
const struct foreign_format *foreign_format_of_name(const char *path);

/* "qcow2". */
const char *foreign_format_name(const struct foreign_format *format);
/* What the file holds is a raw disk: only its name is not one of those. */
bool foreign_format_is_raw(const struct foreign_format *format);
/* What to type to have a raw disk of PATH, quoted for a shell; none exists under the new name by
 * itself. g_free. */
char *foreign_format_command(const struct foreign_format *format, const char *path);

#endif
