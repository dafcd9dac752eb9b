/* What other programs have put into a file or a device. */
#include "aio/content.h"

#include <blkid/blkid.h>
#include <glib.h>
#include <string.h>

#include "aio/foreign.h"

/* By libblkid's USAGE. */
static const struct {
	const char *usage;
	const char *text;
} usages[] = {
	{"filesystem", "has a file system"},
	{"raid", "is part of a RAID array or a volume group"},
	{"crypto", "is encrypted"},
};

static const char *usage_text(const char *usage)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(usages); i++)
		if (strcmp(usages[i].usage, usage) == 0)
			return usages[i].text;
	return "is in use";
}

/* Borrowed; NULL: it has no such value. */
static const char *value_of(blkid_probe probe, const char *name)
{
	const char *value;

	return blkid_probe_lookup_value(probe, name, &value, NULL) == 0 ? value : NULL;
}

static char *probed_text(blkid_probe probe)
{
	const char *type = value_of(probe, "TYPE"), *table = value_of(probe, "PTTYPE"), *usage;

	usage = type ? value_of(probe, "USAGE") : NULL;
	if (type)
		return g_strdup_printf("%s (%s)", usage_text(usage ? usage : ""), type);
	return table ? g_strdup_printf("has a partition table (%s)", table) : NULL;
}

static char *probe_text(blkid_probe probe, int fd)
{
	if (blkid_probe_set_device(probe, fd, 0, 0) < 0)
		return NULL;
	blkid_probe_enable_superblocks(probe, 1);
	blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE);
	blkid_probe_enable_partitions(probe, 1);
	switch (blkid_do_safeprobe(probe)) {
	case 0:
		return probed_text(probe);
	case -2:
		return g_strdup("has the signatures of several file systems");
	default:
		return NULL;
	}
}

char *content_text(int fd)
{
	const struct foreign_format *format = foreign_format_of(fd);
	blkid_probe probe;
	char *text;

	if (format)
		return g_strdup_printf("is a disk image (%s)", foreign_format_name(format));
	probe = blkid_new_probe();
	text = probe ? probe_text(probe, fd) : NULL;
	blkid_free_probe(probe);
	return text;
}
