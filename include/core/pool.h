/* Fixed pools of equal objects, sized at start: the data path never allocates.
 *
 * A pool belongs to one thread. Objects are handed out last-in first-out, so
 * that a light load stays in a few warm pages; pages of objects that were
 * never used are never touched. */
#ifndef LEAFDISK_CORE_POOL_H
#define LEAFDISK_CORE_POOL_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

struct pool;

/* COUNT objects of SIZE bytes each, the address of every object being ALIGN
 * (a power of two) bytes aligned plus SKEW. SKEW lets a message with a header
 * be received so that its payload is aligned. NULL and ERROR set when the
 * memory cannot be mapped. Contents start zeroed. */
struct pool *pool_new(size_t size, size_t count, size_t align, size_t skew, GError **error);
/* Every object must be back. NULL is allowed. */
void pool_free(struct pool *pool);

/* NULL when all objects are out: the caller waits for one to come back. */
void *pool_get(struct pool *pool);
void pool_put(struct pool *pool, void *object);

size_t pool_available(const struct pool *pool);
/* Whether OBJECT is one of the pool's. */
bool pool_owns(const struct pool *pool, const void *object);
/* Gives the memory of all idle objects back to the kernel (contents are lost). */
void pool_trim(struct pool *pool);

#endif
