/* Fixed pools of equal objects.
 *
 * The objects are one anonymous mapping that the kernel fills page by page as
 * they are used. Idle objects are a stack of their numbers, kept apart from
 * the objects so that handing one out, or taking it back, touches no page of
 * another; the lowest numbers start on top. `in_use` says the same from the
 * object's side, for pool_trim() and for the checks of debug builds. */
#include "core/pool.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/error.h"
#include "core/memory.h"

#if defined(LEAFDISK_FAULTS) || defined(G_DEBUG_POOL)
#define POOL_CHECKS 1
#else
#define POOL_CHECKS 0
#endif

struct pool {
	char *mapping;
	size_t mapping_bytes;
	char *first; /* address of object 0 */
	size_t size;
	size_t stride;
	uint32_t count;
	uint32_t available;
	uint32_t *idle; /* numbers of idle objects, `available` of them */
	bool *in_use;
};

static size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

static char *object_at(const struct pool *pool, size_t number)
{
	return pool->first + number * pool->stride;
}

static bool check_shape(size_t size, size_t count, size_t align, GError **error)
{
	if (size > 0 && size <= SIZE_MAX / 4 && count > 0 && count <= UINT32_MAX && is_power_of_two(align) &&
	    align <= SIZE_MAX / 4)
		return true;
	return error_set(error, EINVAL, "a pool of %zu objects of %zu bytes aligned to %zu cannot be", count, size,
			 align);
}

/* Room for the objects, the skew, and for moving the first one up to an
 * alignment beyond a page's. */
static bool map_objects(struct pool *pool, size_t align, size_t skew, GError **error)
{
	size_t extra = skew + (align > page_bytes() ? align : 0);
	size_t bytes;

	if (__builtin_mul_overflow(pool->stride, (size_t)pool->count, &bytes) ||
	    __builtin_add_overflow(bytes, extra, &bytes))
		return error_set_errno(error, ENOMEM, "cannot map a pool of %u objects of %zu bytes", pool->count,
				       pool->size);
	pool->mapping = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (pool->mapping == MAP_FAILED) {
		pool->mapping = NULL;
		return error_set_errno(error, errno, "cannot map %zu bytes for a pool of %u objects", bytes,
				       pool->count);
	}
	pool->mapping_bytes = bytes;
	if (!memory_has_room())
		return error_set_errno(error, ENOMEM, "no memory is left beside a pool of %u objects", pool->count);
	pool->first = pool->mapping + (-(uintptr_t)pool->mapping & (align - 1)) + skew;
	return true;
}

static void fill_idle(struct pool *pool)
{
	pool->idle = g_new(uint32_t, pool->count);
	pool->in_use = g_new0(bool, pool->count);
	for (uint32_t i = 0; i < pool->count; i++)
		pool->idle[i] = pool->count - 1 - i;
	pool->available = pool->count;
}

struct pool *pool_new(size_t size, size_t count, size_t align, size_t skew, GError **error)
{
	struct pool *pool;

	if (!check_shape(size, count, align, error))
		return NULL;
	pool = g_new0(struct pool, 1);
	pool->size = size;
	pool->stride = round_up(size, align);
	pool->count = (uint32_t)count;
	if (!map_objects(pool, align, skew & (align - 1), error)) {
		pool_free(pool);
		return NULL;
	}
	fill_idle(pool);
	return pool;
}

void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	if (POOL_CHECKS && pool->idle && pool->available != pool->count)
		g_error("a pool is freed with %u of %u objects out", pool->count - pool->available, pool->count);
	if (pool->mapping)
		munmap(pool->mapping, pool->mapping_bytes);
	g_free(pool->idle);
	g_free(pool->in_use);
	g_free(pool);
}

void *pool_get(struct pool *pool)
{
	uint32_t number;

	if (pool->available == 0)
		return NULL;
	number = pool->idle[--pool->available];
	pool->in_use[number] = true;
	return object_at(pool, number);
}

static void check_put(const struct pool *pool, const void *object)
{
	uintptr_t offset = (uintptr_t)object - (uintptr_t)pool->first;

	if (offset % pool->stride != 0 || offset / pool->stride >= pool->count)
		g_error("%p is put into a pool it is not from", object);
	if (!pool->in_use[offset / pool->stride])
		g_error("%p is put into its pool twice", object);
}

void pool_put(struct pool *pool, void *object)
{
	uint32_t number;

	if (POOL_CHECKS)
		check_put(pool, object);
	number = (uint32_t)((size_t)((char *)object - pool->first) / pool->stride);
	pool->in_use[number] = false;
	pool->idle[pool->available++] = number;
}

size_t pool_available(const struct pool *pool)
{
	return pool->available;
}

bool pool_owns(const struct pool *pool, const void *object)
{
	return (uintptr_t)object - (uintptr_t)pool->first < pool->stride * pool->count;
}

/* Objects FROM to END - 1 are idle and their neighbours are not: what lies
 * between those can go, in whole pages. A refusal costs memory only. */
static void trim_run(struct pool *pool, size_t from, size_t end)
{
	uintptr_t low = (uintptr_t)(from == 0 ? pool->mapping : object_at(pool, from - 1) + pool->size);
	uintptr_t high = (uintptr_t)(end == pool->count ? pool->mapping + pool->mapping_bytes : object_at(pool, end));

	low = round_up(low, page_bytes());
	high = round_down(high, page_bytes());
	if (low < high)
		(void)madvise((void *)low, high - low, MADV_DONTNEED);
}

void pool_trim(struct pool *pool)
{
	size_t from = 0;

	for (size_t i = 0; i <= pool->count; i++) {
		if (i < pool->count && !pool->in_use[i])
			continue;
		if (from < i)
			trim_run(pool, from, i);
		from = i + 1;
	}
}
