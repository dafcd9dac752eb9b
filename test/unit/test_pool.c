/* Fixed pools: shape, order, exhaustion, memory and the debug checks. */
#include "core/pool.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/error.h"

#define MAX_OBJECTS 64

static struct pool *make(size_t size, size_t count, size_t align, size_t skew)
{
	g_autoptr(GError) error = NULL;
	struct pool *pool = pool_new(size, count, align, skew, &error);

	g_assert_no_error(error);
	g_assert_nonnull(pool);
	g_assert_cmpuint(pool_available(pool), ==, count);
	return pool;
}

static void get_all(struct pool *pool, void **objects, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		objects[i] = pool_get(pool);
		g_assert_nonnull(objects[i]);
	}
	g_assert_cmpuint(pool_available(pool), ==, 0);
	g_assert_null(pool_get(pool));
}

static void put_all(struct pool *pool, void **objects, size_t count)
{
	for (size_t i = 0; i < count; i++)
		pool_put(pool, objects[i]);
	g_assert_cmpuint(pool_available(pool), ==, count);
	pool_free(pool);
}

static bool is_filled_with(const unsigned char *data, size_t size, unsigned char byte)
{
	return data[0] == byte && memcmp(data, data + 1, size - 1) == 0;
}

/* Objects start zeroed, stand where they should and share no byte. */
static void check_shape(size_t size, size_t count, size_t align, size_t skew)
{
	struct pool *pool = make(size, count, align, skew);
	void *objects[MAX_OBJECTS];

	get_all(pool, objects, count);
	for (size_t i = 0; i < count; i++) {
		g_assert_cmpuint(((uintptr_t)objects[i] - skew) % align, ==, 0);
		g_assert_true(is_filled_with(objects[i], size, 0));
		memset(objects[i], (int)i + 1, size);
	}
	for (size_t i = 0; i < count; i++)
		g_assert_true(is_filled_with(objects[i], size, (unsigned char)(i + 1)));
	put_all(pool, objects, count);
}

static void test_shapes(void)
{
	static const size_t aligns[] = {1, 8, 64, 512, 4096, 65536, 2 << 20};
	static const size_t sizes[] = {1, 24, 4096, 4097, 135168};

	for (size_t a = 0; a < G_N_ELEMENTS(aligns); a++)
		for (size_t s = 0; s < G_N_ELEMENTS(sizes); s++) {
			check_shape(sizes[s], 5, aligns[a], 0);
			check_shape(sizes[s], 5, aligns[a], aligns[a] > 80 ? aligns[a] - 80 : 0);
		}
	check_shape(100, MAX_OBJECTS, 8, 8 + 3);
}

static void test_last_in_first_out(void)
{
	struct pool *pool = make(64, 3, 64, 0);
	char *first = pool_get(pool);
	char *second = pool_get(pool);

	g_assert_true(second == first + 64);
	pool_put(pool, first);
	g_assert_true(pool_get(pool) == first);
	pool_put(pool, second);
	pool_put(pool, first);
	g_assert_true(pool_get(pool) == first);
	g_assert_true(pool_get(pool) == second);
	pool_put(pool, first);
	pool_put(pool, second);
	pool_free(pool);
}

static bool is_resident(void *page)
{
	unsigned char resident = 0;

	g_assert_cmpint(mincore(page, (size_t)sysconf(_SC_PAGESIZE), &resident), ==, 0);
	return resident & 1;
}

static void test_untouched_stays_untouched(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct pool *pool = make(page, 8, page, 0);
	char *object = pool_get(pool);

	*object = 1;
	pool_put(pool, object);
	g_assert_true(is_resident(object));
	for (size_t i = 1; i < 8; i++)
		g_assert_false(is_resident(object + i * page));
	pool_free(pool);
}

/* Eight objects of half a page, those with a bit in USED out: exactly the
 * pages with no such object go, and no object in use loses a byte. */
static void check_trim(unsigned used)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct pool *pool = make(page / 2, 8, page / 2, 0);
	void *objects[8];

	get_all(pool, objects, 8);
	for (size_t i = 0; i < 8; i++)
		memset(objects[i], (int)i + 1, page / 2);
	for (size_t i = 0; i < 8; i++)
		if (!(used >> i & 1))
			pool_put(pool, objects[i]);
	pool_trim(pool);
	for (size_t i = 0; i < 8; i++) {
		g_assert_true(is_resident(objects[i & ~(size_t)1]) == ((used >> (i & ~(size_t)1) & 3) != 0));
		if (used >> i & 1)
			g_assert_true(is_filled_with(objects[i], page / 2, (unsigned char)(i + 1)));
	}
	for (size_t i = 0; i < 8; i++)
		if (used >> i & 1)
			pool_put(pool, objects[i]);
	pool_free(pool);
}

static void test_trim(void)
{
	for (unsigned used = 0; used < 256; used++)
		check_trim(used);
}

/* Objects that start and end inside pages keep their neighbours' bytes. */
static void test_trim_skewed(void)
{
	struct pool *pool = make(5000, 16, 64, 16);
	void *objects[16];

	get_all(pool, objects, 16);
	for (size_t i = 0; i < 16; i++)
		memset(objects[i], (int)i + 1, 5000);
	for (size_t i = 0; i < 16; i += 3)
		pool_put(pool, objects[i]);
	pool_trim(pool);
	for (size_t i = 0; i < 16; i++)
		if (i % 3 != 0) {
			g_assert_true(is_filled_with(objects[i], 5000, (unsigned char)(i + 1)));
			pool_put(pool, objects[i]);
		}
	pool_free(pool);
}

static void test_bad_shapes(void)
{
	static const struct {
		size_t size, count, align;
		int errnum;
	} bad[] = {
		{0, 1, 8, EINVAL},
		{8, 0, 8, EINVAL},
		{8, 8, 0, EINVAL},
		{8, 8, 3, EINVAL},
		{SIZE_MAX, 1, 8, EINVAL},
		{8, SIZE_MAX, 8, EINVAL},
		{(size_t)1 << 61, 64, 8, ENOMEM},
		{(size_t)1 << 60, 1, 8, ENOMEM},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
		g_autoptr(GError) error = NULL;

		g_assert_null(pool_new(bad[i].size, bad[i].count, bad[i].align, 0, &error));
		g_assert_error(error, LEAFDISK_ERROR, bad[i].errnum);
	}
	pool_free(NULL);
}

#ifdef LEAFDISK_FAULTS
static void put_twice(void)
{
	struct pool *pool = make(64, 4, 64, 0);
	void *object = pool_get(pool);

	pool_put(pool, object);
	pool_put(pool, object);
}

static void put_foreign(void)
{
	struct pool *pool = make(64, 4, 64, 0);
	char *object = pool_get(pool);

	pool_put(pool, object + 1);
}

static void put_beyond(void)
{
	struct pool *pool = make(64, 4, 64, 0);
	char *object = pool_get(pool);

	pool_put(pool, object + 4 * 64);
}

static void free_with_objects_out(void)
{
	struct pool *pool = make(64, 4, 64, 0);

	pool_get(pool);
	pool_free(pool);
}

static void test_checks(gconstpointer misuse)
{
	if (g_test_subprocess()) {
		((void (*)(void))misuse)();
		return;
	}
	g_test_trap_subprocess(NULL, 0, 0);
	g_test_trap_assert_failed();
	g_test_trap_assert_stderr("*pool*");
}
#endif

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/pool/shapes", test_shapes);
	g_test_add_func("/pool/last-in-first-out", test_last_in_first_out);
	g_test_add_func("/pool/untouched", test_untouched_stays_untouched);
	g_test_add_func("/pool/trim", test_trim);
	g_test_add_func("/pool/trim-skewed", test_trim_skewed);
	g_test_add_func("/pool/bad-shapes", test_bad_shapes);
#ifdef LEAFDISK_FAULTS
	g_test_add_data_func("/pool/checks/twice", put_twice, test_checks);
	g_test_add_data_func("/pool/checks/foreign", put_foreign, test_checks);
	g_test_add_data_func("/pool/checks/beyond", put_beyond, test_checks);
	g_test_add_data_func("/pool/checks/objects-out", free_with_objects_out, test_checks);
#endif
	return g_test_run();
}
