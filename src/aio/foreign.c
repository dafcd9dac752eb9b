/* Formats in which disks come and that are not opened here.
 *
 * Sources: QEMU's docs/interop (qcow2, parallels, qed), the VHD specification (a footer, which a
 * dynamic image has at its beginning too), [MS-VHDX], VMware's Virtual Disk Format, ECMA-119. */
#include "aio/foreign.h"

#include <glib.h>
#include <string.h>

#include "aio/file.h"
#include "core/shell.h"

#define MAGIC_MAX 16

struct foreign_format {
	const char *name;
	const char *ending;
	int64_t offset; /* of the magic; negative: from the end */
	size_t length;
	const char *magic;
	const char *command; /* before the file's name; "mv ": it is raw */
	const char *between; /* before the new one */
};

#define QEMU_IMG(format) "qemu-img convert -f " format " -O raw ", " "

static const struct foreign_format formats[] = {
	{"qcow2", ".qcow2", 0, 8, "QFI\xfb\0\0\0\2", QEMU_IMG("qcow2")},
	{"qcow2", ".qcow2", 0, 8, "QFI\xfb\0\0\0\3", QEMU_IMG("qcow2")},
	{"qcow", ".qcow", 0, 8, "QFI\xfb\0\0\0\1", QEMU_IMG("qcow")},
	{"qed", ".qed", 0, 4, "QED\0", QEMU_IMG("qed")},
	{"vmdk", ".vmdk", 0, 4, "KDMV", QEMU_IMG("vmdk")},
	{"vmdk", ".vmdk", 0, 4, "COWD", QEMU_IMG("vmdk")},
	{"vmdk", ".vmdk", 0, 16, "# Disk Descripto", QEMU_IMG("vmdk")},
	{"vhd", ".vhd", 0, 8, "conectix", QEMU_IMG("vpc")},
	{"vhd", ".vhd", -512, 8, "conectix", QEMU_IMG("vpc")},
	{"vhdx", ".vhdx", 0, 8, "vhdxfile", QEMU_IMG("vhdx")},
	{"vdi", ".vdi", 64, 4, "\x7f\x10\xda\xbe", QEMU_IMG("vdi")},
	{"parallels", ".hdd", 0, 16, "WithoutFreeSpace", QEMU_IMG("parallels")},
	{"parallels", ".hdd", 0, 16, "WithouFreSpacExt", QEMU_IMG("parallels")},
	{"iso", ".iso", 32769, 5, "CD001", "mv ", " "},
	{"gzip", ".gz", 0, 3, "\x1f\x8b\x08", "gzip -dc ", " > "},
	{"xz", ".xz", 0, 6,
	 "\xfd"
	 "7zXZ\0",
	 "xz -dc ", " > "},
	{"zstd", ".zst", 0, 4, "\x28\xb5\x2f\xfd", "zstd -dc ", " > "},
	{"bzip2", ".bz2", 0, 3, "BZh", "bzip2 -dc ", " > "},
};

static bool has_magic(int fd, const struct foreign_format *format, int64_t file_bytes)
{
	int64_t offset = format->offset < 0 ? file_bytes + format->offset : format->offset;
	char found[MAGIC_MAX];

	return offset >= 0 && aio_fd_read(fd, found, format->length, (uint64_t)offset) == 0 &&
	       memcmp(found, format->magic, format->length) == 0;
}

const struct foreign_format *foreign_format_of(int fd)
{
	int64_t bytes = aio_fd_size(fd);

	for (unsigned i = 0; i < G_N_ELEMENTS(formats); i++)
		if (has_magic(fd, &formats[i], bytes))
			return &formats[i];
	return NULL;
}

const struct foreign_format *foreign_format_of_name(const char *path)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(formats); i++)
		if (g_str_has_suffix(path, formats[i].ending))
			return &formats[i];
	return NULL;
}

const char *foreign_format_name(const struct foreign_format *format)
{
	return format->name;
}

bool foreign_format_is_raw(const struct foreign_format *format)
{
	return strcmp(format->command, "mv ") == 0;
}

static bool cut_ending(char *path, const char *ending)
{
	bool has = g_str_has_suffix(path, ending);

	if (has)
		path[strlen(path) - strlen(ending)] = '\0';
	return has;
}

/* As PATH, with the ending of a raw disk in place of the one that it has. */
static char *raw_name(const struct foreign_format *format, const char *path)
{
	g_autofree char *stem = g_strdup(path);

	(void)cut_ending(stem, format->ending);
	if (!cut_ending(stem, ".img"))
		(void)cut_ending(stem, ".raw");
	return g_strconcat(stem, g_str_has_suffix(path, ".raw") ? ".img" : ".raw", NULL);
}

char *foreign_format_command(const struct foreign_format *format, const char *path)
{
	g_autofree char *raw = raw_name(format, path), *from = shell_quote(path), *to = shell_quote(raw);

	return g_strconcat(format->command, from, format->between, to, NULL);
}
