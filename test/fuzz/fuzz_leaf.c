/* Fuzz target: any bytes as a native image, looked at, checked, opened, walked.
 *
 * An image is mostly zeros, so an input is packed (test/fuzz/pack.py): its size
 * in le32, then patches of le32 page number, le16 length and that many bytes.
 * Headers, pages and records carry checksums that random bytes never match;
 * where a magic stands they are made right, so that the fuzzer works on what
 * comes after them. The image passes through a file in LEAFDISK_FUZZ_DIR, a RAM
 * disk. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/bytes.h"
#include "format/leaf.h"
#include "image/image.h"

#define IMAGE_BYTES_MAX (4u << 20)
#define EXTENTS_MAX 256

struct patch {
	le32 page;
	le16 bytes;
	uint8_t data[];
} __attribute__((packed));

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *path;
static uint8_t *image_bytes;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *directory = getenv("LEAFDISK_FUZZ_DIR");

	(void)argc;
	(void)argv;
	path = g_strdup_printf("%s/fuzz-%d.leaf", directory ? directory : "/dev/shm", (int)getpid());
	image_bytes = g_malloc(IMAGE_BYTES_MAX);
	/* Messages about broken images are all it would print. */
	if (!freopen("/dev/null", "w", stdout))
		abort();
	return 0;
}

static void seal_block(uint8_t *block, size_t length, size_t checksum_offset)
{
	le64 checksum = le64_of(0);

	memcpy(block + checksum_offset, &checksum, sizeof(checksum));
	checksum = le64_of(XXH64(block, length, 0));
	memcpy(block + checksum_offset, &checksum, sizeof(checksum));
}

static void seal_page(uint8_t *page, size_t left)
{
	const struct leaf_record_ondisk *record = (const void *)page;
	uint32_t magic = le32_get(record->magic);
	uint32_t bytes = le32_get(record->bytes);

	if (memcmp(page, LEAF_MAGIC, 8) == 0)
		seal_block(page, LEAF_HEADER_BYTES, offsetof(struct leaf_header_ondisk, checksum));
	else if (magic == LEAF_TABLE_MAGIC || magic == LEAF_ZERO_MAGIC)
		seal_block(page, LEAF_PAGE_BYTES, offsetof(struct leaf_page_ondisk, checksum));
	else if (magic == LEAF_RECORD_MAGIC && bytes >= sizeof(*record) && bytes <= left)
		seal_block(page, bytes, offsetof(struct leaf_record_ondisk, checksum));
}

/* Unpacks DATA into image_bytes, which is all zeros. Returns the image's size. */
static size_t unpack(const uint8_t *data, size_t size)
{
	const le32 *image_size = (const void *)data;
	const struct patch *patch;
	size_t length = MIN(le32_get(*image_size), IMAGE_BYTES_MAX);

	for (size_t at = sizeof(*image_size); size - at >= sizeof(*patch);
	     at += sizeof(*patch) + le16_get(patch->bytes)) {
		uint64_t place;

		patch = (const void *)(data + at);
		place = (uint64_t)le32_get(patch->page) * LEAF_PAGE_BYTES;
		if (le16_get(patch->bytes) > size - at - sizeof(*patch) || place + le16_get(patch->bytes) > length)
			break;
		memcpy(image_bytes + place, patch->data, le16_get(patch->bytes));
	}
	return length;
}

static bool write_file(size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	bool ok = fd >= 0 && ftruncate(fd, (off_t)length) == 0;

	for (size_t at = 0; ok && at < length; at += LEAF_PAGE_BYTES) {
		size_t bytes = MIN(length - at, LEAF_PAGE_BYTES);

		if (bytes == LEAF_PAGE_BYTES)
			seal_page(image_bytes + at, length - at);
		if (!buffer_is_zero(image_bytes + at, bytes))
			ok = pwrite(fd, image_bytes + at, bytes, (off_t)at) == (ssize_t)bytes;
	}
	if (fd >= 0)
		close(fd);
	return ok;
}

static void ignore_finding(void *opaque, bool repaired, const char *sentence)
{
	(void)opaque;
	(void)repaired;
	if (sentence[0] == '\0')
		abort();
}

static void look_at_info(void)
{
	struct image_info info;

	if (!image_read_info(path, IMAGE_FORMAT_LEAF, &info, NULL))
		return;
	image_info_clear(&info);
}

static void check(bool repair)
{
	struct image_check_result result;

	image_check(path, IMAGE_FORMAT_LEAF, repair, ignore_finding, NULL, &result, NULL);
}

/* Walks the extents from the start; each must lie inside the image. */
static void walk(struct image *image)
{
	uint64_t blocks = blocks_of(image->size_bytes);
	uint64_t block = 0;

	for (int i = 0; i < EXTENTS_MAX && block < blocks; i++) {
		struct image_extent extent = image_extent(image, block, blocks - block);

		if (extent.blocks == 0 || extent.blocks > blocks - block)
			abort();
		block += extent.blocks;
	}
}

static void open_and_walk(void)
{
	struct image *image = image_open(path, IMAGE_FORMAT_LEAF, IMAGE_NO_DIRECT, 0, NULL);

	if (!image)
		return;
	walk(image);
	image_close(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < sizeof(le32))
		return 0;
	memset(image_bytes, 0, IMAGE_BYTES_MAX);
	if (!write_file(unpack(data, size)))
		return 0;
	look_at_info();
	check(false);
	open_and_walk();
	check(true);
	open_and_walk();
	unlink(path);
	return 0;
}
