/* Memory that is set aside, once the process may have no more. */
#include "core/memory.h"

#include <glib.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>

#define BYTES ((size_t)1 << 20)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static void limit_memory(rlim_t bytes)
{
	struct rlimit limit;

	g_assert_cmpint(getrlimit(RLIMIT_AS, &limit), ==, 0);
	limit.rlim_cur = MIN(bytes, limit.rlim_max);
	g_assert_cmpint(setrlimit(RLIMIT_AS, &limit), ==, 0);
}

static void test_plenty(void)
{
	struct memory_spare spare = {0};
	void *memory;

	g_assert_true(memory_spare_init(&spare, BYTES));
	memory = memory_spare_map(&spare, 2 * BYTES);
	g_assert_true(memory && memory != spare.memory);
	memory_spare_unmap(&spare, memory, 2 * BYTES);
	memory_spare_unmap(&spare, NULL, BYTES);
	memory_spare_clear(&spare);
	memory = memory_spare_map(&spare, BYTES);
	g_assert_nonnull(memory);
	memory_spare_unmap(&spare, memory, BYTES);
}

/* One at a time has it, and gets zeros. */
static void test_none(void)
{
	struct memory_spare spare = {0};
	uint8_t *memory, *second, *larger, *again;
	uint8_t first_byte;

	if (SANITIZED) {
		g_test_skip("a sanitizer needs address space of its own");
		return;
	}
	g_assert_true(memory_spare_init(&spare, BYTES));
	limit_memory(BYTES);
	larger = memory_spare_map(&spare, BYTES + 1);
	memory = memory_spare_map(&spare, BYTES);
	second = memory_spare_map(&spare, 1);
	if (memory)
		memset(memory, 1, BYTES);
	memory_spare_unmap(&spare, memory, BYTES);
	again = memory_spare_map(&spare, 1);
	first_byte = again ? again[0] : 1;
	memory_spare_unmap(&spare, again, 1);
	limit_memory(RLIM_INFINITY);
	g_assert_true(memory && memory == spare.memory && again == memory);
	g_assert_true(!larger && !second && first_byte == 0);
	memory_spare_clear(&spare);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/memory/plenty", test_plenty);
	g_test_add_func("/memory/none", test_none);
	return g_test_run();
}
