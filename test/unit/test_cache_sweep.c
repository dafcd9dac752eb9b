/* A cache that is damaged in every place and way: what it serves is right, or it says that
 * something is lost, and of whom. Never something old in silence.
 *
 * One life of two disks that are written back, one that is mirrored, and a base that is read, ends
 * cleanly or by a crash. Then bits of its file flip, each block becomes zeros or unreadable, and
 * the file is cut off at each block. Recovery and the check run each time, and agree. Of the bits
 * only some flip, with LEAFDISK_TORTURE many: that each is found the format's own test shows. */
#include <errno.h>
#include <sys/syscall.h>

#include "aio/file.h"
#include "cache/format/format.h"
#include "cache/index/index.h"
#include "cache/offline/view.h"
#include "cache_disk.h"

#define CACHE_BYTES (16u << 20)
#define TAGS 4 /* disks 1 and 2, the mirrored one, the base */

/* Shared with the child that dies. */
struct life {
	struct disk disks[2];
	uint64_t mirrored[DISK_BLOCKS];
	uint64_t base[DISK_BLOCKS];
};

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

/* ---- A life ------------------------------------------------------------------- */

static void mirror(struct life *life, struct user *user, struct cache_layer *layer, unsigned first, unsigned count,
		   uint64_t version)
{
	g_assert_cmpint(put(user, layer, 3, first, count, version, false), ==, 0);
	for (unsigned i = 0; i < count; i++)
		life->mirrored[first + i] = version;
}

static void migrate_some(struct disk *disk)
{
	while (disk->image[0] == 0)
		g_assert_true(migrate(disk, 8, false));
}

/* Few blocks in many records, so that each kind of record is there, and little time is needed. */
static void live(struct life *life, struct cache *cache, struct user *user)
{
	struct cache_layer *base, *mirrored;

	for (unsigned i = 0; i < 2; i++)
		disk_init(&life->disks[i], cache, user, i + 1);
	base = open_layer(cache, 4, 77, false);
	mirrored = open_layer(cache, 3, 77, true);
	g_assert_cmpint(put(user, base, 4, 0, 8, 1, false), ==, 0);
	for (unsigned i = 0; i < 8; i++)
		life->base[i] = 1;
	for (unsigned round = 0; round < 6; round++) {
		struct disk *disk = &life->disks[round % 2];

		put_waiting(disk, round / 2 * 3, 4);
		flush_waiting(disk);
		if (round == 2)
			zero_waiting(disk, 5, 10);
		mirror(life, user, mirrored, round, 2, round + 1);
		if (round % 3 == 0)
			flush_waiting(disk);
	}
	flush_waiting(&life->disks[0]);
	migrate_some(&life->disks[0]);
	put_waiting(&life->disks[0], 0, 2);
	put_waiting(&life->disks[1], 30, 2);
	flush_waiting(&life->disks[0]);
	flush_waiting(&life->disks[1]);
	cache_layer_close(mirrored, 78);
	cache_layer_close(base, 0);
}

static void end_cleanly(struct life *life, struct cache *cache)
{
	for (unsigned i = 0; i < 2; i++)
		cache_layer_close(life->disks[i].layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
}

/* The cache that it leaves, and what its disks were. */
static struct life *run_life(const char *path, bool crash)
{
	struct life *life = shared_memory(sizeof(*life));
	pid_t child = fork_child();

	if (child == 0) {
		struct cache *cache = open_cache(path, CACHE_BYTES);
		struct user user;

		user_init(&user);
		live(life, cache, &user);
		g_assert_cmpint(cache_sync(cache), ==, 0);
		if (!crash)
			end_cleanly(life, cache);
		_exit(0);
	}
	g_assert_cmpint(exit_status_of(child), ==, 0);
	return life;
}

/* ---- What is served ------------------------------------------------------------ */

struct sweep {
	struct life *life;
	const char *path;
	int fd;
	uint8_t *content; /* of the whole file */
	uint64_t used;	  /* bytes, up to the last one that is not zero */
	uint64_t last;	  /* where a crash leaves a record that nobody knows to be durable */
	unsigned right, failed, refused, harmless;
};

static uint64_t expected(const struct life *life, unsigned tag, unsigned block)
{
	if (tag <= 2)
		return life->disks[tag - 1].now.blocks[block];
	return tag == 3 ? life->mirrored[block] : life->base[block];
}

/* Where the cache has nothing of it. */
static uint64_t on_image(const struct life *life, unsigned tag, unsigned block)
{
	return tag <= 2 ? life->disks[tag - 1].image[block] : expected(life, tag, block);
}

/* False: an error is what a read gets. */
static bool serve(const struct sweep *sweep, const struct cache_view *view, const struct cache_layer *layer,
		  unsigned tag, unsigned block, uint64_t *version)
{
	uint32_t slot = index_find(view->index, layer->id, block);
	struct index_entry entry;
	uint8_t data[BLOCK_SIZE];
	bool bad;

	*version = on_image(sweep->life, tag, block);
	if (slot == INDEX_NO_SLOT) {
		if (layer->zeros && intervals_contains(layer->zeros, block, 1, NULL))
			*version = 0;
		return true;
	}
	index_get(view->index, slot, &entry);
	bad = aio_fd_read(view->fd, data, sizeof(data), cache_slot_offset(slot)) < 0 ||
	      cache_checksum_short(cache_data_checksum(data)) != entry.checksum;
	if (bad || (entry.flags & INDEX_LOST))
		return !(entry.flags & INDEX_PINNED);
	*version = version_of(data);
	g_assert_true(is_filled(data, tag, block, *version));
	return true;
}

/* Whether all of it is there. */
static bool look_at_layer(const struct sweep *sweep, const struct cache_view *view, unsigned tag)
{
	uint8_t identity[CACHE_ID_BYTES];
	struct cache_layer *layer;
	bool whole = true;

	memset(identity, (int)tag, sizeof(identity));
	layer = layers_by_identity(view->layers, identity);
	if ((layer && layer->incomplete) || (!layer && view->end.unknown))
		return false;
	for (unsigned block = 0; block < 40; block++) {
		uint64_t version = on_image(sweep->life, tag, block);

		if (layer && !serve(sweep, view, layer, tag, block, &version))
			whole = false;
		else
			g_assert_cmpuint(version, ==, expected(sweep->life, tag, block));
	}
	return whole;
}

static void count_finding(void *opaque, const char *sentence)
{
	(void)sentence;
	++*(unsigned *)opaque;
}

/* Once with each damage: what the mount would find, and what the check says. */
static void look(struct sweep *sweep, bool may_be_refused)
{
	struct cache_check_result result;
	struct cache_view view;
	unsigned findings = 0;
	bool whole = true;

	if (!cache_view_open_recovered(&view, sweep->path, NULL)) {
		g_assert_true(may_be_refused);
		sweep->refused++;
		return;
	}
	for (unsigned tag = 1; tag <= TAGS; tag++)
		whole &= look_at_layer(sweep, &view, tag);
	g_assert_true(cache_check(sweep->path, count_finding, &findings, &result, NULL));
	if (!whole || view.end.holes->len > 0)
		g_assert_cmpuint(findings, >, 0);
	sweep->failed += !whole;
	sweep->right += whole && findings > 0;
	sweep->harmless += whole && findings == 0;
	cache_view_close(&view);
}

/* ---- Damage --------------------------------------------------------------------- */

/* Nobody can tell the last record of a crash that is damaged from one that was torn. */
static bool is_last(const struct sweep *sweep, uint64_t offset)
{
	return sweep->last && offset >= sweep->last;
}

static void put_back(const struct sweep *sweep, uint64_t offset, size_t bytes)
{
	g_assert_cmpint(aio_fd_write(sweep->fd, sweep->content + offset, bytes, offset), ==, 0);
}

static bool is_used(const struct sweep *sweep, uint64_t offset)
{
	return !buffer_is_zero(sweep->content + offset, BLOCK_SIZE);
}

static void flip_bits(struct sweep *sweep, uint64_t offset)
{
	unsigned step = getenv("LEAFDISK_TORTURE") ? 41 : 3989;

	for (unsigned bit = (unsigned)g_test_rand_int_range(0, (gint32)step); bit < BLOCK_SIZE * 8; bit += step) {
		uint8_t byte = sweep->content[offset + bit / 8] ^ (uint8_t)(1u << bit % 8);

		g_assert_cmpint(aio_fd_write(sweep->fd, &byte, 1, offset + bit / 8), ==, 0);
		look(sweep, false);
		put_back(sweep, offset + bit / 8, 1);
	}
}

static void zero_block(struct sweep *sweep, uint64_t offset)
{
	static const uint8_t zeros[BLOCK_SIZE];

	g_assert_cmpint(aio_fd_write(sweep->fd, zeros, sizeof(zeros), offset), ==, 0);
	look(sweep, false);
	put_back(sweep, offset, BLOCK_SIZE);
}

static void spoil_block(struct sweep *sweep, uint64_t offset)
{
	bad_from = (off_t)offset;
	bad_to = (off_t)offset + BLOCK_SIZE;
	look(sweep, false);
	bad_from = bad_to = 0;
}

static void cut_off(struct sweep *sweep, uint64_t offset)
{
	g_assert_cmpint(ftruncate(sweep->fd, (off_t)offset), ==, 0);
	look(sweep, offset < CACHE_SUPER_OFFSET(0) + BLOCK_SIZE);
	if (offset < sweep->used)
		put_back(sweep, offset, sweep->used - offset);
	g_assert_cmpint(ftruncate(sweep->fd, CACHE_BYTES), ==, 0);
}

/* ---- The sweep -------------------------------------------------------------------- */

static void load(struct sweep *sweep)
{
	struct cache_view view;

	sweep->content = g_malloc(CACHE_BYTES);
	g_assert_cmpint(aio_fd_read(sweep->fd, sweep->content, CACHE_BYTES, 0), ==, 0);
	for (uint64_t offset = 0; offset < CACHE_BYTES; offset += BLOCK_SIZE)
		if (is_used(sweep, offset))
			sweep->used = offset + BLOCK_SIZE;
	g_assert_true(cache_view_open_recovered(&view, sweep->path, NULL));
	g_assert_cmpuint(view.end.holes->len, ==, 0);
	for (unsigned slot = 0; view.end.durable + 1 < view.end.sequence && slot < 1000; slot++) {
		const struct cache_record_ondisk *record = (const void *)(sweep->content + cache_slot_offset(slot));

		if (cache_record_is_intact(record, cache_slot_offset(slot), le64_get(record->cache_id)) &&
		    le64_get(record->sequence) == view.end.durable + 1)
			sweep->last = cache_slot_offset(slot);
	}
	cache_view_close(&view);
}

static void test_sweep(const void *crash)
{
	g_autofree char *path = new_path();
	struct sweep sweep = {.path = path, .life = run_life(path, crash)};
	unsigned blocks = 0;

	sweep.fd = open(path, O_RDWR | O_CLOEXEC);
	g_assert_cmpint(sweep.fd, >=, 0);
	load(&sweep);
	g_assert_true(!!sweep.last == !!crash);
	look(&sweep, false);
	g_assert_cmpuint(sweep.harmless, ==, 1);
	for (uint64_t offset = 0; offset < sweep.used; offset += BLOCK_SIZE) {
		if (is_last(&sweep, offset) || !is_used(&sweep, offset))
			continue;
		flip_bits(&sweep, offset);
		zero_block(&sweep, offset);
		blocks++;
	}
	for (uint64_t offset = 0; offset < sweep.used + 64 * BLOCK_SIZE; offset += BLOCK_SIZE)
		spoil_block(&sweep, offset);
	for (uint64_t offset = 0; offset < CACHE_BYTES; offset += offset < sweep.used ? BLOCK_SIZE : 64 * BLOCK_SIZE)
		cut_off(&sweep, offset);
	g_test_message("%u blocks: %u times right and said, %u times failed, %u times harmless, %u times refused",
		       blocks, sweep.right, sweep.failed, sweep.harmless, sweep.refused);
	g_assert_cmpuint(blocks, >, 40);
	g_assert_cmpuint(sweep.failed, >, 60);
	close(sweep.fd);
	g_free(sweep.content);
	munmap(sweep.life, sizeof(*sweep.life));
}

/* ---- When the tail has passed it ---------------------------------------------------- */

/* Damages the header of the record whose only data is the block. */
static void damage_record_of(const char *path, uint64_t tag, uint64_t block, uint64_t version)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t data[BLOCK_SIZE], byte;
	off_t at = CACHE_SEGMENTS_OFFSET;

	while (pread(fd, data, sizeof(data), at) == sizeof(data) && !is_filled(data, tag, block, version))
		at += BLOCK_SIZE;
	g_assert_cmpint(pread(fd, &byte, 1, at - BLOCK_SIZE + 100), ==, 1);
	byte ^= 1;
	g_assert_cmpint(pwrite(fd, &byte, 1, at - BLOCK_SIZE + 100), ==, 1);
	close(fd);
}

static void assert_incomplete(struct cache *cache, uint8_t tag)
{
	uint8_t identity[CACHE_ID_BYTES];
	struct cache_layer_found found;

	memset(identity, tag, sizeof(identity));
	g_assert_true(cache_layer_find(cache, identity, &found));
	g_assert_true(found.incomplete);
	g_assert_cmpuint(found.dirty_blocks, >, 0);
	g_assert_null(open_dirty(cache, tag, 1, 2));
}

static void go_round(struct disk *disk)
{
	struct cache_status status;
	uint64_t passed = 0, tail;

	cache_get_status(disk->cache, &status);
	for (tail = status.tail_segment; passed < 2 * status.segments; tail = status.tail_segment) {
		put_waiting(disk, 0, 100);
		drain(disk);
		cache_get_status(disk->cache, &status);
		passed += (status.tail_segment + status.segments - tail) % status.segments;
	}
}

/* What shows the loss is reclaimed with everything else: the layer knows it still. */
static void test_reclaimed(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL);
	struct cache_check_result result;
	struct disk lost, other;
	unsigned findings = 0;
	struct user user;

	user_init(&user);
	disk_init(&lost, cache, &user, 1);
	disk_init(&other, cache, &user, 2);
	put_waiting(&lost, 0, 1);
	flush_waiting(&lost);
	drain(&lost);
	g_assert_cmpint(cache_sync(cache), ==, 0); /* MIGRATED too */
	put_waiting(&lost, 1, 1);
	flush_waiting(&lost);
	put_waiting(&other, 0, 1);
	flush_waiting(&other);
	cache_layer_close(lost.layer, 0);
	cache_layer_close(other.layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	damage_record_of(path, 1, 1, 2);
	cache = open_cache(path, 0);
	assert_incomplete(cache, 1);
	disk_reopen(&other, cache, 1, 2);
	go_round(&other);
	cache_layer_close(other.layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	g_assert_true(cache_check(path, count_finding, &findings, &result, NULL));
	g_assert_cmpuint(findings, ==, 1);
	cache = open_cache(path, 0);
	assert_incomplete(cache, 1);
	g_assert_cmpint(cache_close(cache), ==, 0);
	history_free(lost.history);
	history_free(other.history);
	user_clear(&user);
}

int main(int argc, char **argv)
{
	int result;

	g_test_init(&argc, &argv, NULL);
	make_directory();
	g_test_add_data_func("/cache-sweep/clean", NULL, test_sweep);
	g_test_add_data_func("/cache-sweep/crash", "crash", test_sweep);
	add_apart("/cache-sweep/reclaimed", test_reclaimed);
	result = g_test_run();
	remove_directory();
	return result;
}
