/* Fuzz target: any bytes as a native image, looked at, checked, opened, walked.
 *
 * What each of these costs, in memory and in time of a processor, is bounded by
 * the space that the file has: an input that costs more is a finding.
 *
 * An image is mostly zeros, so an input is packed (test/fuzz/pack.py): its size
 * in le64, then patches of le32 page number, le16 length and that many bytes.
 * Headers, pages and records carry checksums that random bytes never match;
 * where a magic stands they are made right, so that the fuzzer works on what
 * comes after them. The image passes through a file in LEAFDISK_FUZZ_DIR, a RAM
 * disk. */
#include <fcntl.h>
#include <sanitizer/allocator_interface.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/bytes.h"
#include "format/leaf.h"
#include "image/format.h"

/* The file may be longer; what is behind this is a hole. */
#define IMAGE_BYTES_MAX (4u << 20)
#define FILE_BYTES_MAX (UINT64_C(8) << 40)
/* The longest journal, read and written, and the slots that it may name; then
 * what the tables of a file take in memory, sanitized. */
#define MEMORY_BYTES (INT64_C(512) << 20)
#define MEMORY_PER_BYTE 64
#define PROCESSOR_SECONDS 20
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

static _Atomic int64_t memory_held, memory_peak;

static void count_malloc(const volatile void *data, size_t size)
{
	int64_t held = atomic_fetch_add(&memory_held, (int64_t)size) + (int64_t)size;

	(void)data;
	if (held > memory_peak)
		memory_peak = held;
}

static void count_free(const volatile void *data)
{
	if (data)
		memory_held -= (int64_t)__sanitizer_get_allocated_size((const void *)data);
}

static int64_t processor_seconds(void)
{
	struct timespec used = {0};

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return used.tv_sec;
}

static int64_t file_space(void)
{
	struct stat st;

	return stat(path, &st) == 0 ? (int64_t)st.st_blocks * 512 : 0;
}

/* Runs STEP, which costs no more than it may. */
static void run_bounded(const char *name, void (*step)(void))
{
	int64_t space = file_space(), held = memory_held, began = processor_seconds(), memory, seconds;

	memory_peak = held;
	step();
	memory = memory_peak - held;
	seconds = processor_seconds() - began;
	if (memory <= MEMORY_BYTES + MEMORY_PER_BYTE * space && seconds <= PROCESSOR_SECONDS)
		return;
	fprintf(stderr, "%s of a file with %lld bytes: %lld bytes of memory, %lld s\n", name, (long long)space,
		(long long)memory, (long long)seconds);
	abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *directory = getenv("LEAFDISK_FUZZ_DIR");

	(void)argc;
	(void)argv;
	path = g_strdup_printf("%s/fuzz-%d.leaf", directory ? directory : "/dev/shm", (int)getpid());
	image_bytes = g_malloc(IMAGE_BYTES_MAX);
	__sanitizer_install_malloc_and_free_hooks(count_malloc, count_free);
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

/* Unpacks DATA into image_bytes, which is all zeros. Returns the file's size. */
static uint64_t unpack(const uint8_t *data, size_t size)
{
	const le64 *file_size = (const void *)data;
	const struct patch *patch;
	uint64_t length = MIN(le64_get(*file_size), FILE_BYTES_MAX);
	uint64_t end = MIN(length, IMAGE_BYTES_MAX);

	for (size_t at = sizeof(*file_size); size - at >= sizeof(*patch);
	     at += sizeof(*patch) + le16_get(patch->bytes)) {
		uint64_t place;

		patch = (const void *)(data + at);
		place = (uint64_t)le32_get(patch->page) * LEAF_PAGE_BYTES;
		if (le16_get(patch->bytes) > size - at - sizeof(*patch) || place + le16_get(patch->bytes) > end)
			break;
		memcpy(image_bytes + place, patch->data, le16_get(patch->bytes));
	}
	return length;
}

static bool write_file(uint64_t file_size)
{
	size_t length = MIN(file_size, IMAGE_BYTES_MAX);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	bool ok = fd >= 0 && ftruncate(fd, (off_t)file_size) == 0;

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

static void check_only(void)
{
	check(false);
}

static void repair(void)
{
	check(true);
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
	if (size < sizeof(le64))
		return 0;
	memset(image_bytes, 0, IMAGE_BYTES_MAX);
	if (!write_file(unpack(data, size)))
		return 0;
	run_bounded("info", look_at_info);
	run_bounded("check", check_only);
	run_bounded("open", open_and_walk);
	run_bounded("repair", repair);
	run_bounded("open after repair", open_and_walk);
	unlink(path);
	return 0;
}
