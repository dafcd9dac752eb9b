/* What a device is mounted on. */
#ifndef LEAFDISK_AIO_MOUNT_POINT_H
#define LEAFDISK_AIO_MOUNT_POINT_H

/* Where the file system on the device with NUMBERS ("7:3") is mounted; NULL: nowhere, as far as is
 * seen from here. g_free. The device is not touched. */
char *mount_point_of(const char *numbers);

#endif
