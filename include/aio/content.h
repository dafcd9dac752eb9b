/* What other programs have put into a file or a device. */
#ifndef LEAFDISK_AIO_CONTENT_H
#define LEAFDISK_AIO_CONTENT_H

/* What stands in what FD is open on to be read, for a sentence: "is a disk image (qcow2)", "has a file
 * system (ext4)"; NULL: nothing that is known. g_free. Blocks. */
char *content_text(int fd);

#endif
