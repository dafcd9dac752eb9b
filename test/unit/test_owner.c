/* Owners: each row of the decision table, and records that are no records. */
#include "owner/mounts.h"
#include "owner/owner.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"
#include "owner/proof.h"

static const uint8_t our_cache[OWNER_ID_BYTES] = "the cache's uuid", other_id[OWNER_ID_BYTES] = "another identity";

static struct owner_self self;
static char *pool;

/* A process that has ended. */
static int64_t dead_pid(void)
{
	pid_t child = fork();

	if (child == 0)
		_exit(0);
	g_assert_cmpint(waitpid(child, NULL, 0), ==, child);
	return child;
}

struct row {
	const char *mode;
	const char *host;    /* NULL: ours */
	const char *boot_id; /* NULL: ours */
	const uint8_t *mount_id;
	const uint8_t *cache_id;
	bool clean, runs, locked;
	enum owner_verdict verdict;
};

static const uint8_t no_id[OWNER_ID_BYTES];

static const struct row rows[] = {
	/* Clean: whoever it was. */
	{"direct", NULL, NULL, other_id, no_id, true, true, false, OWNER_FREE},
	{"writeback", "other", "b", other_id, other_id, true, true, false, OWNER_FREE},
	{"none", "", "", no_id, no_id, true, false, false, OWNER_FREE},
	/* This mount's. */
	{"direct", NULL, NULL, self.mount_id, no_id, false, true, false, OWNER_MINE},
	{"writeback", NULL, NULL, self.mount_id, other_id, false, true, true, OWNER_MINE},
	/* Our cache's, wherever it was before. */
	{"writeback", NULL, NULL, other_id, our_cache, false, false, true, OWNER_MINE},
	{"writeback", "other", "b", other_id, our_cache, false, false, true, OWNER_MINE},
	/* The cache's identity does not count in the other modes. */
	{"persistent", "other", "b", other_id, our_cache, false, false, true, OWNER_FOREIGN},
	/* Another cache's. */
	{"writeback", NULL, NULL, other_id, other_id, false, false, true, OWNER_IN_CACHE},
	{"writeback", NULL, "b", other_id, other_id, false, false, true, OWNER_IN_CACHE},
	{"writeback", "other", "b", other_id, other_id, false, false, true, OWNER_IN_CACHE},
	{"writeback", NULL, NULL, other_id, no_id, false, false, true, OWNER_IN_CACHE},
	/* Another host's. */
	{"direct", "other", "b", other_id, no_id, false, false, true, OWNER_FOREIGN},
	/* This start of the machine, under another name. */
	{"persistent", "other", NULL, other_id, no_id, false, false, false, OWNER_STALE},
	/* This host's. */
	{"direct", NULL, NULL, other_id, no_id, false, true, true, OWNER_STALE},
	{"direct", NULL, "b", other_id, no_id, false, true, true, OWNER_STALE},
	{"direct", NULL, "b", other_id, no_id, false, true, false, OWNER_FOREIGN},
	{"persistent", NULL, NULL, other_id, no_id, false, false, false, OWNER_STALE},
	{"persistent", NULL, NULL, other_id, no_id, false, true, false, OWNER_LIVE},
};

static struct owner_record record_of(const struct row *row, int64_t dead)
{
	struct owner_record record = {
		.host = g_strdup(row->host ? row->host : self.host),
		.boot_id = g_strdup(row->boot_id ? row->boot_id : self.boot_id),
		.pid = row->runs ? getppid() : dead,
		.cache_path = g_strdup("/ssd/the cache"),
		.generation = 7,
		.mode = g_strdup(row->mode),
		.clean = row->clean,
	};

	memcpy(record.mount_id, row->mount_id, OWNER_ID_BYTES);
	memcpy(record.cache_id, row->cache_id, OWNER_ID_BYTES);
	return record;
}

static void assert_mentions(const GError *error, const char *words)
{
	g_assert_nonnull(strstr(error->message, words));
}

static void assert_refusal(const GError *error, enum owner_verdict verdict)
{
	g_autofree char *unlock = g_strdup_printf("leafctl unlock %s web1.leaf", pool);
	g_autofree char *force = g_strdup_printf("leafctl unlock --force %s web1.leaf", pool);

	g_assert_error(error, LEAFDISK_ERROR, EBUSY);
	assert_mentions(error, "since 2");
	if (verdict == OWNER_IN_CACHE) {
		assert_mentions(error, force);
		assert_mentions(error, "cache='/ssd/the cache'");
	} else if (verdict == OWNER_FOREIGN) {
		assert_mentions(error, unlock);
		assert_mentions(error, "owned by host ");
	}
}

static void assert_stands(const char *name, const struct owner_self *who, uint64_t generation, bool expected)
{
	g_assert_cmpint(owner_check(pool, name, who, generation, NULL), ==, expected ? ANSWER_YES : ANSWER_NO);
}

/* The verdict, and that a claim follows it. */
static void check_row(const struct row *row, int64_t dead)
{
	struct owner_record record = record_of(row, dead), after;
	struct owner_want want = {.mode = "direct", .image_generation = 3, .locked = row->locked};
	g_autoptr(GError) error = NULL;
	struct owner_claim claim;
	bool claimed;

	g_assert_cmpint(owner_judge(&record, &self, row->locked), ==, row->verdict);
	g_assert_true(owner_write(pool, "web1.leaf", &record, NULL));
	claimed = owner_claim(pool, "web1.leaf", &self, &want, &claim, &error);
	g_assert_true(claimed == (row->verdict <= OWNER_STALE));
	if (!claimed)
		assert_refusal(error, row->verdict);
	g_assert_true(owner_read(pool, "web1.leaf", &after, NULL));
	g_assert_cmpuint(after.generation, ==, claimed ? 8 : 7);
	assert_stands("web1.leaf", &self, 8, claimed);
	assert_stands("web1.leaf", &self, 7, false);
	owner_record_clear(&record);
	owner_record_clear(&after);
}

static void test_table(void)
{
	int64_t dead = dead_pid();

	for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_test_message("row %u", i);
		check_row(&rows[i], dead);
	}
}

struct proof_row {
	const char *mode; /* NULL: there is no record */
	const uint8_t *cache_id;
	bool clean;
	uint64_t log;
	enum answer answer;
};

/* Without nonces. The record's generation is 7. */
static const struct proof_row proof_rows[] = {
	{NULL, no_id, false, 7, ANSWER_UNKNOWN},
	/* Another's, or nobody's. */
	{"writeback", other_id, false, 7, ANSWER_NO},
	{"direct", no_id, true, 7, ANSWER_NO},
	{"none", no_id, true, 7, ANSWER_NO},
	/* Ours. The log has a generation before the record does. */
	{"writeback", our_cache, false, 7, ANSWER_YES},
	{"writeback", our_cache, false, 8, ANSWER_YES},
	{"writeback", our_cache, false, 6, ANSWER_UNKNOWN},
	{"writeback", our_cache, false, 9, ANSWER_UNKNOWN},
	{"writeback", our_cache, false, 0, ANSWER_UNKNOWN},
	/* The image has all of it. */
	{"writeback", our_cache, true, 7, ANSWER_UNKNOWN},
	{"persistent", our_cache, true, 8, ANSWER_UNKNOWN},
	/* It had all of it, and was written since. */
	{"writeback", our_cache, true, 6, ANSWER_NO},
	{"persistent", our_cache, true, 7, ANSWER_NO},
	{"direct", our_cache, true, 6, ANSWER_NO},
	{"direct", our_cache, false, 6, ANSWER_NO},
	{"persistent", our_cache, false, 7, ANSWER_NO},
	{"persistent", our_cache, false, 8, ANSWER_UNKNOWN},
	{"persistent", our_cache, false, 0, ANSWER_UNKNOWN},
};

static void assert_proof(const struct owner_last *last, const struct owner_claim *log, enum answer answer)
{
	const char *doubt = NULL;

	g_assert_cmpint(owner_prove(last, log, &doubt), ==, answer);
	g_assert_true((answer == ANSWER_UNKNOWN) == (doubt != NULL));
}

static void test_proof_by_generation(void)
{
	struct owner_image image = {.has_nonce = ANSWER_YES};

	for (unsigned i = 0; i < G_N_ELEMENTS(proof_rows); i++) {
		const struct proof_row *row = &proof_rows[i];
		struct owner_record record = {.generation = 7, .mode = (char *)row->mode, .clean = row->clean};
		struct owner_last last = {.self = &self, .record = row->mode ? &record : NULL, .image = &image};
		struct owner_claim log = {.generation = row->log};

		g_test_message("row %u", i);
		memcpy(record.cache_id, row->cache_id, OWNER_ID_BYTES);
		assert_proof(&last, &log, row->answer);
	}
}

/* L is the log's nonce, N none, O another. */
struct nonce_row {
	const char *record;   /* its nonce and that which ended, mode ('w', 'd', 'n'), clean ('c') or not; NULL: none */
	const char *expected; /* for an image with L, O, N; without a place, the same file, another one; that does not
				 tell */
};

static const struct nonce_row nonce_rows[] = {
	/* There is no record. */
	{NULL, "YUUUUU"},
	/* Given up by command. */
	{"NNn-", "NNNNNN"},
	{"NLnc", "NNNNNN"},
	/* It has ended. */
	{"OLw-", "NNNNNN"},
	{"OLdc", "NNNNNN"},
	/* The image has had all of it. */
	{"LNd-", "NNNNNN"},
	{"LNdc", "NNNNNN"},
	/* They agree. */
	{"LNw-", "YUUYUU"},
	{"LOw-", "YUUYUU"},
	/* And the image has all of it. */
	{"LNwc", "UUUUUU"},
	/* Another has had the image. */
	{"OOw-", "UNNNNU"},
	{"ONdc", "UNNNNU"},
	{"NNdc", "UNNNNU"},
};

static void set_nonce(uint8_t nonce[OWNER_ID_BYTES], char which)
{
	memset(nonce, which == 'N' ? 0 : which, OWNER_ID_BYTES);
}

static void check_nonce_row(const struct nonce_row *row)
{
	static const char images[] = "LONssu";
	static const uint64_t inodes[] = {5, 5, 5, 5, 6, 5};

	for (unsigned i = 0; i < sizeof(images) - 1; i++) {
		struct owner_image image = {.has_nonce = ANSWER_YES, .inode = inodes[i]};
		struct owner_record record = {.inode = 5};
		struct owner_last last = {.self = &self, .record = row->record ? &record : NULL, .image = &image};
		struct owner_claim log = {.generation = 1};
		char answer = row->expected[i];

		if (images[i] == 's' || images[i] == 'u')
			image.has_nonce = images[i] == 's' ? ANSWER_NO : ANSWER_UNKNOWN;
		else
			set_nonce(image.nonce, images[i]);
		set_nonce(log.nonce, 'L');
		if (row->record) {
			set_nonce(record.nonce, row->record[0]);
			set_nonce(record.ended, row->record[1]);
			record.mode = row->record[2] == 'w' ? "writeback" : row->record[2] == 'd' ? "direct" : "none";
			record.clean = row->record[3] == 'c';
		}
		g_test_message("image %u", i);
		assert_proof(&last, &log, answer == 'Y' ? ANSWER_YES : answer == 'N' ? ANSWER_NO : ANSWER_UNKNOWN);
	}
}

static void test_proof_by_nonce(void)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(nonce_rows); i++) {
		g_test_message("row %u", i);
		check_nonce_row(&nonce_rows[i]);
	}
}

/* A cache that has not been as far as its own claim is not the one that has the changes. */
static void test_older_copy(void)
{
	struct owner_want want = {.mode = "direct", .locked = true};
	struct row row = {"writeback", NULL, NULL, other_id, our_cache, false, false, true, OWNER_MINE};

	for (uint64_t claimed = 3; claimed <= 5; claimed++) {
		struct owner_record record = record_of(&row, 1);
		g_autoptr(GError) error = NULL;
		struct owner_claim claim;

		self.cache_generation = 4;
		record.cache_generation = claimed;
		g_assert_cmpint(owner_judge(&record, &self, true), ==, claimed < 4 ? OWNER_MINE : OWNER_IN_COPY);
		g_assert_true(owner_write(pool, "copy.leaf", &record, NULL));
		g_assert_true(owner_claim(pool, "copy.leaf", &self, &want, &claim, &error) == (claimed < 4));
		if (claimed >= 4)
			assert_mentions(error, "an older copy of that");
		owner_record_clear(&record);
	}
	self.cache_generation = 0;
}

/* One that was as far, in another mount than that of the claim, is not either. */
static void test_mounts_of_a_copy(void)
{
	struct row row = {"writeback", NULL, NULL, other_id, our_cache, false, false, true, OWNER_MINE};
	struct owner_record record = record_of(&row, 1);
	uint8_t mounts[OWNER_MOUNTS][OWNER_ID_BYTES] = {{0}};
	struct owner_self copy;

	owner_self_init(&copy, NULL, our_cache);
	record.cache_generation = 3;
	owner_self_set_mounts(&copy, 4, mounts[0]);
	g_assert_cmpint(owner_judge(&record, &copy, true), ==, OWNER_MINE);
	memcpy(mounts[3], record.mount_id, OWNER_ID_BYTES);
	memset(mounts[4], 'm', OWNER_ID_BYTES);
	owner_self_set_mounts(&copy, 4, mounts[0]);
	g_assert_cmpint(owner_judge(&record, &copy, true), ==, OWNER_MINE);
	g_assert_cmpmem(copy.mount_id, OWNER_ID_BYTES, mounts[4], OWNER_ID_BYTES);
	memset(mounts[3], 'x', OWNER_ID_BYTES);
	owner_self_set_mounts(&copy, 4, mounts[0]);
	g_assert_cmpint(owner_judge(&record, &copy, true), ==, OWNER_IN_COPY);
	owner_self_set_mounts(&copy, 3 + OWNER_MOUNTS, mounts[0]);
	g_assert_cmpint(owner_judge(&record, &copy, true), ==, OWNER_MINE);
	owner_self_clear(&copy);
	owner_record_clear(&record);
}

static void test_no_record(void)
{
	struct owner_want want = {.mode = "persistent", .image_generation = 41};
	g_autoptr(GError) error = NULL;
	struct owner_record record;
	struct owner_claim claim;

	g_assert_true(owner_remove(pool, "new.leaf", NULL));
	g_assert_false(owner_read(pool, "new.leaf", &record, &error));
	g_assert_error(error, LEAFDISK_ERROR, ENOENT);
	g_assert_true(owner_claim(pool, "new.leaf", &self, &want, &claim, NULL));
	g_assert_cmpuint(claim.generation, ==, 42);
	g_assert_true(owner_read(pool, "new.leaf", &record, NULL));
	g_assert_cmpstr(record.host, ==, self.host);
	g_assert_cmpstr(record.boot_id, ==, self.boot_id);
	g_assert_cmpint(record.pid, ==, getpid());
	g_assert_cmpstr(record.mode, ==, "persistent");
	g_assert_cmpstr(record.cache_path, ==, "/nowhere/cache");
	g_assert_false(record.clean);
	owner_record_clear(&record);
}

static void test_release(void)
{
	struct owner_want want = {.mode = "direct"};
	struct owner_self other;
	g_autoptr(GError) error = NULL;
	struct owner_record record;
	struct owner_claim one, two;
	uint64_t first, second;

	owner_self_init(&other, NULL, NULL);
	want.locked = true;
	g_assert_true(owner_claim(pool, "r.leaf", &self, &want, &one, NULL));
	g_assert_true(owner_claim(pool, "r.leaf", &other, &want, &two, NULL));
	first = one.generation;
	second = two.generation;
	g_assert_cmpuint(second, >, first);
	/* Taken over: nothing is changed. */
	assert_stands("r.leaf", &self, first, false);
	g_assert_cmpint(owner_release(pool, "r.leaf", &self, first, &error), ==, ANSWER_NO);
	g_assert_error(error, LEAFDISK_ERROR, ESTALE);
	assert_stands("r.leaf", &other, second, true);
	g_assert_cmpint(owner_release(pool, "r.leaf", &other, second, NULL), ==, ANSWER_YES);
	assert_stands("r.leaf", &other, second, false);
	g_assert_true(owner_read(pool, "r.leaf", &record, NULL));
	g_assert_true(record.clean);
	g_assert_cmpuint(record.generation, ==, second);
	g_assert_cmpint(owner_release(pool, "r.leaf", &other, 0, NULL), ==, ANSWER_YES);
	g_assert_true(owner_remove(pool, "r.leaf", NULL));
	g_assert_cmpint(owner_check(pool, "r.leaf", &other, second, NULL), ==, ANSWER_UNKNOWN);
	owner_record_clear(&record);
	owner_self_clear(&other);
}

#define GOOD_ID "00112233445566778899aabbccddeeff"
#define HEAD "[owner]\nhost=h\nboot_id=b\ncache_path=\nmode=direct\nsince=2026-11-21T09:30:15Z\n"
#define IDS "mount_id=" GOOD_ID "\ncache_id=" GOOD_ID "\n"
#define GOOD HEAD IDS "pid=1\ngeneration=1\nclean=true\n"

static const char *const bad_records[] = {
	"",
	"\n",
	"[owner]\n",
	"[other]\nhost=h\n",
	"no key file",
	"\xff\xfe\xfd",
	HEAD IDS "pid=1\ngeneration=1\n",
	HEAD IDS "pid=1\nclean=true\n",
	HEAD IDS "generation=1\nclean=true\n",
	HEAD "pid=1\ngeneration=1\nclean=true\n",
	HEAD IDS "pid=-1\ngeneration=1\nclean=true\n",
	HEAD IDS "pid=4294967296\ngeneration=1\nclean=true\n",
	HEAD IDS "pid=1\ngeneration=-1\nclean=true\n",
	HEAD IDS "pid=1\ngeneration=18446744073709551616\nclean=true\n",
	HEAD IDS "pid=1\ngeneration=0x10\nclean=true\n",
	HEAD IDS "pid=1\ngeneration=1\nclean=yes\n",
	GOOD "mode=turbo\n",
	GOOD "mode=ephemeral\n",
	GOOD "since=yesterday\n",
	GOOD "host=a\\nb\n",
	GOOD "cache_path=/\xff\n",
	GOOD "mount_id=0011\n",
	GOOD "mount_id=" GOOD_ID "00\n",
	GOOD "cache_id=00112233445566778899aabbccddeefg\n",
};

static char *record_path(void)
{
	return g_build_filename(pool, ".leafdisk", "owners", "bad.leaf", NULL);
}

static void assert_refused(void)
{
	struct owner_want want = {.mode = "direct", .locked = true};
	g_autoptr(GError) error = NULL, claim = NULL, why = NULL;
	struct owner_record record;
	struct owner_claim taken;

	g_assert_false(owner_read(pool, "bad.leaf", &record, &error));
	g_assert_error(error, LEAFDISK_ERROR, EINVAL);
	g_assert_null(record.host);
	g_assert_false(owner_claim(pool, "bad.leaf", &self, &want, &taken, &claim));
	g_assert_error(claim, LEAFDISK_ERROR, EBUSY);
	assert_mentions(claim, "leafctl unlock --force ");
	g_assert_cmpint(owner_check(pool, "bad.leaf", &self, 0, &why), ==, ANSWER_UNKNOWN);
	g_assert_error(why, LEAFDISK_ERROR, EINVAL);
}

static void test_bad_records(void)
{
	g_autofree char *path = record_path();
	struct owner_record record;

	g_assert_true(g_file_set_contents(path, GOOD, -1, NULL));
	g_assert_true(owner_read(pool, "bad.leaf", &record, NULL));
	owner_record_clear(&record);
	for (unsigned i = 0; i < G_N_ELEMENTS(bad_records); i++) {
		g_test_message("record %u", i);
		g_assert_true(g_file_set_contents(path, bad_records[i], -1, NULL));
		assert_refused();
	}
	g_assert_true(g_file_set_contents(path, GOOD "\0x=1\n", sizeof(GOOD "\0x=1\n") - 1, NULL));
	assert_refused();
}

static void test_no_regular_file(void)
{
	g_autofree char *path = record_path(), *huge = g_strnfill(1 << 20, '#');

	g_assert_true(g_file_set_contents(path, huge, 1 << 20, NULL));
	assert_refused();
	g_assert_cmpint(g_unlink(path), ==, 0);
	g_assert_cmpint(symlink("r.leaf", path), ==, 0);
	assert_refused();
	g_assert_cmpint(g_unlink(path), ==, 0);
	g_assert_cmpint(g_mkdir(path, 0700), ==, 0);
	assert_refused();
	g_assert_cmpint(g_rmdir(path), ==, 0);
}

static void test_texts_come_back(void)
{
	struct owner_record record = {
		.host = g_strdup("a\nb"),
		.boot_id = g_strdup(""),
		.cache_path = g_strdup(" /with\\back = [x] \xc3\xa9 \xff"),
		.generation = UINT64_MAX,
		.mode = g_strdup("none"),
		.clean = true,
	};
	struct owner_want want = {.mode = "direct"};
	g_autoptr(GError) error = NULL;
	struct owner_record back;
	struct owner_claim claim;

	g_assert_true(owner_write(pool, "t.leaf", &record, NULL));
	g_assert_true(owner_read(pool, "t.leaf", &back, NULL));
	g_assert_cmpstr(back.host, ==, "a?b");
	g_assert_cmpstr(back.cache_path, ==, " /with\\back = [x] \xc3\xa9 \xef\xbf\xbd");
	g_assert_cmpuint(back.generation, ==, UINT64_MAX);
	g_assert_false(owner_claim(pool, "t.leaf", &self, &want, &claim, &error));
	g_assert_error(error, LEAFDISK_ERROR, EOVERFLOW);
	owner_record_clear(&record);
	owner_record_clear(&back);
}

int main(int argc, char **argv)
{
	int status;

	g_test_init(&argc, &argv, NULL);
	owner_self_init(&self, "/nowhere/cache", our_cache);
	pool = g_dir_make_tmp("owner.XXXXXX", NULL);
	g_test_add_func("/owner/no-record", test_no_record);
	g_test_add_func("/owner/table", test_table);
	g_test_add_func("/owner/mounts-of-a-copy", test_mounts_of_a_copy);
	g_test_add_func("/owner/proof-by-generation", test_proof_by_generation);
	g_test_add_func("/owner/proof-by-nonce", test_proof_by_nonce);
	g_test_add_func("/owner/older-copy", test_older_copy);
	g_test_add_func("/owner/release", test_release);
	g_test_add_func("/owner/bad-records", test_bad_records);
	g_test_add_func("/owner/no-regular-file", test_no_regular_file);
	g_test_add_func("/owner/texts-come-back", test_texts_come_back);
	status = g_test_run();
	g_free(pool);
	owner_self_clear(&self);
	return status;
}
