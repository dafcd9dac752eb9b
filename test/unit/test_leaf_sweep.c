/* A small leaf that is damaged in every place of its metadata: what is read is right, or it is
 * refused, or the read fails. Never something old in silence.
 *
 * Bits of each page of metadata flip, with LEAFDISK_TORTURE many, each page becomes zeros or unreadable, and
 * the file is cut off at each block. Data has no checksums: what a store makes of it is its own affair, as
 * with a raw image. */
#include <fcntl.h>
#include <sys/syscall.h>

#include "aio/file.h"
#include "core/counters.h"
#include "leaf_fixture.h"

#define BLOCKS 128
#define SIZE ((uint64_t)BLOCKS << BLOCK_SHIFT)

/* ---- A device with bad blocks ------------------------------------------------ */

static off_t bad_from, bad_to;

ssize_t pread(int fd, void *data, size_t bytes, off_t offset)
{
	if (offset < bad_to && offset + (off_t)bytes > bad_from) {
		errno = EIO;
		return -1;
	}
	return syscall(SYS_pread64, fd, data, bytes, offset);
}

/* ---- The image ---------------------------------------------------------------- */

struct sweep {
	char *path;
	int fd;
	uint8_t *content; /* of the file */
	uint64_t bytes;
	uint64_t used;	    /* up to the last byte that is not zero */
	uint64_t epoch;	    /* of the journal */
	uint64_t last, end; /* the journal's last record: nobody can tell it from one that a crash cut off */
	uint8_t model[BLOCKS];
	unsigned right, found, failed, refused;
};

static void put(struct sweep *sweep, struct image *image, unsigned first, unsigned count, uint8_t value)
{
	uint8_t *data = new_buffer((uint64_t)count << BLOCK_SHIFT);

	memset(data, value, (size_t)count << BLOCK_SHIFT);
	g_assert_cmpint(transfer(image, true, first, count, data), ==, 0);
	memset(sweep->model + first, value, count);
	free(data);
}

static void zero(struct sweep *sweep, struct image *image, unsigned first, unsigned count)
{
	g_assert_cmpint(run_op(image, image_zero, first, count), ==, 0);
	memset(sweep->model + first, 0, count);
}

static void flush(struct image *image)
{
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
}

/* So many that the tables get it all, and the journal begins anew. */
static void fill_tables(struct sweep *sweep, struct image *image)
{
	uint64_t before = counters.image_checkpoints;

	for (unsigned i = 0; counters.image_checkpoints == before; i++) {
		if (i % 2)
			zero(sweep, image, i % BLOCKS, 1);
		else
			put(sweep, image, i * 5 % BLOCKS, 1, (uint8_t)(i % 100 + 1));
		flush(image);
		g_assert_cmpuint(i, <, 10000);
	}
}

/* As a crash leaves it: tables and lists, and what is in the journal only. */
static void live(struct sweep *sweep)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);

	memset(sweep->model, 0xaa, sizeof(sweep->model));
	zero(sweep, image, 40, 30);
	fill_tables(sweep, image);
	for (unsigned i = 0; i < 6; i++) {
		put(sweep, image, 9 * i + 10, 3, (uint8_t)(i + 117));
		zero(sweep, image, 10 * i + 1, 2);
		flush(image);
	}
	sweep->path = copy_of(path);
	g_assert_cmpint(image_close(image), ==, 0);
}

static void find_last(struct sweep *sweep)
{
	uint64_t newest[2] = {0, 0};

	/* By epoch, and in that by sequence. */
	for (uint64_t at = 0; at < sweep->used; at += BLOCK_SIZE) {
		const struct leaf_record_ondisk *record = (const void *)(sweep->content + at);
		uint64_t order[2] = {le64_get(record->epoch), le64_get(record->sequence)};

		if (le32_get(record->magic) != LEAF_RECORD_MAGIC ||
		    (order[0] == newest[0] ? order[1] < newest[1] : order[0] < newest[0]))
			continue;
		memcpy(newest, order, sizeof(newest));
		sweep->epoch = order[0];
		sweep->last = at;
		sweep->end = at + le32_get(record->bytes);
	}
}

static void load(struct sweep *sweep)
{
	live(sweep);
	sweep->fd = open(sweep->path, O_RDWR | O_CLOEXEC);
	sweep->bytes = (uint64_t)lseek(sweep->fd, 0, SEEK_END);
	sweep->content = g_malloc0(sweep->bytes + BLOCK_SIZE);
	g_assert_cmpint(aio_fd_read(sweep->fd, sweep->content, sweep->bytes, 0), ==, 0);
	for (uint64_t at = 0; at < sweep->bytes; at++)
		if (sweep->content[at])
			sweep->used = at + 1;
	find_last(sweep);
}

/* ---- What is served ------------------------------------------------------------ */

static void count_finding(void *opaque, bool repaired, const char *sentence)
{
	(void)repaired;
	(void)sentence;
	++*(unsigned *)opaque;
}

static void compare(struct sweep *sweep, const uint8_t *data)
{
	for (unsigned i = 0; i < BLOCKS; i++)
		for (unsigned j = 0; j < BLOCK_SIZE; j += 511)
			g_assert_cmphex(data[i * BLOCK_SIZE + j], ==, sweep->model[i]);
}

/* With each damage. What nobody finds is read rightly; what is refused has a sentence. */
static void look(struct sweep *sweep)
{
	struct image_check_result result = {0};
	g_autoptr(GError) error = NULL;
	struct image *image = image_open(sweep->path, IMAGE_FORMAT_LEAF, 0, 0, &error);
	uint8_t *data = new_buffer(SIZE);
	unsigned findings = 0;
	bool readable = image && transfer(image, false, 0, BLOCKS, data) == 0;
	bool checked = image_check(sweep->path, IMAGE_FORMAT_LEAF, false, count_finding, &findings, &result, NULL);

	g_assert_true(image || error->message[0]);
	if (readable)
		compare(sweep, data);
	else
		g_assert_true(!checked || findings > 0);
	sweep->refused += !image;
	sweep->failed += image && !readable;
	sweep->found += readable && (!checked || findings > 0 || result.bad_header_copies > 0);
	sweep->right += readable && checked && findings == 0 && result.bad_header_copies == 0;
	if (image)
		image_close(image);
	free(data);
}

/* ---- Damage --------------------------------------------------------------------- */

/* Data is of one byte each, and so is what is not used. Records of the journal before are over. */
static bool is_metadata(const struct sweep *sweep, uint64_t offset)
{
	const uint8_t *page = sweep->content + offset;
	const struct leaf_record_ondisk *record = (const void *)page;

	if (memcmp(page, page + 1, BLOCK_SIZE - 1) == 0 || (offset >= sweep->last && offset < sweep->end))
		return false;
	return le32_get(record->magic) != LEAF_RECORD_MAGIC || le64_get(record->epoch) == sweep->epoch;
}

static void put_back(const struct sweep *sweep, uint64_t offset, size_t bytes)
{
	g_assert_cmpint(aio_fd_write(sweep->fd, sweep->content + offset, bytes, offset), ==, 0);
}

static unsigned flip_bits(struct sweep *sweep, uint64_t offset)
{
	unsigned step = getenv("LEAFDISK_TORTURE") ? 3 : 997, flips = 0;

	for (unsigned bit = (unsigned)g_test_rand_int_range(0, (gint32)step); bit < BLOCK_SIZE * 8; bit += step) {
		uint8_t byte = sweep->content[offset + bit / 8] ^ (uint8_t)(1u << bit % 8);

		g_assert_cmpint(aio_fd_write(sweep->fd, &byte, 1, offset + bit / 8), ==, 0);
		look(sweep);
		put_back(sweep, offset + bit / 8, 1);
		flips++;
	}
	return flips;
}

static void zero_page(struct sweep *sweep, uint64_t offset)
{
	static const uint8_t zeros[BLOCK_SIZE];

	g_assert_cmpint(aio_fd_write(sweep->fd, zeros, sizeof(zeros), offset), ==, 0);
	look(sweep);
	put_back(sweep, offset, BLOCK_SIZE);
}

static void spoil_page(struct sweep *sweep, uint64_t offset)
{
	bad_from = (off_t)offset;
	bad_to = (off_t)offset + BLOCK_SIZE;
	look(sweep);
	bad_from = bad_to = 0;
}

static void cut_off(struct sweep *sweep, uint64_t offset)
{
	g_assert_cmpint(ftruncate(sweep->fd, (off_t)offset), ==, 0);
	look(sweep);
	if (offset < sweep->used)
		put_back(sweep, offset, sweep->used - offset);
	g_assert_cmpint(ftruncate(sweep->fd, (off_t)sweep->bytes), ==, 0);
}

static void test_sweep(void)
{
	struct sweep sweep = {0};
	unsigned pages = 0, flips = 0, cuts = 0;

	load(&sweep);
	look(&sweep);
	g_assert_cmpuint(sweep.right, ==, 1);
	for (uint64_t offset = 0; offset < sweep.used; offset += BLOCK_SIZE) {
		if (!is_metadata(&sweep, offset))
			continue;
		pages++;
		flips += flip_bits(&sweep, offset);
		zero_page(&sweep, offset);
		spoil_page(&sweep, offset);
	}
	/* Whole pages of the journal's last record are cut off with it. */
	for (uint64_t offset = 0; offset < sweep.used; offset += BLOCK_SIZE, cuts++)
		cut_off(&sweep, offset);
	look(&sweep);
	g_test_message("%u pages, %u flips, %u cuts: %u times right, %u found and right, %u failed, %u refused", pages,
		       flips, cuts, sweep.right, sweep.found, sweep.failed, sweep.refused);
	g_assert_cmpuint(pages, >, 4);
	g_assert_cmpuint(sweep.refused, >, 10);
	close(sweep.fd);
	g_free(sweep.content);
	g_free(sweep.path);
}

int main(int argc, char **argv)
{
	int status;

	g_test_init(&argc, &argv, NULL);
	directory = make_directory();
	g_test_add_func("/leaf-sweep", test_sweep);
	status = g_test_run();
	remove_directory();
	return status;
}
