/* The watch on the cache's file: what has been under way for too long. */
#ifndef LEAFDISK_CACHE_WATCH_H
#define LEAFDISK_CACHE_WATCH_H

#include "cache/block.h"
#include "internal.h"

/* Without an answer for so long the file has failed. */
#define ANSWER_NS (10 * NS_PER_S)

/* WATCH, of an operation that has no watch of its own, begins or ends. */
void watch_begin_locked(struct cache *cache, struct cache_watch *watch);
void watch_end_locked(struct cache *cache, struct cache_watch *watch);

/* When to look next; UINT64_MAX: nothing is under way, or was of late. */
uint64_t watch_next_ns_locked(struct cache *cache, uint64_t now);
/* An operation that began at BEGUN_NS is looked at in time. */
void watch_until_locked(struct cache *cache, uint64_t begun_ns);
/* An operation that has no watch of its own has been under way for too long at NOW. */
bool watch_is_overdue_locked(const struct cache *cache, uint64_t now);

#endif
