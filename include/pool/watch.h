/* The watch over a pool's disks: what becomes of their states is told as events. */
#ifndef LEAFDISK_POOL_WATCH_H
#define LEAFDISK_POOL_WATCH_H

struct disk_pool;
struct disk_pool_watch;

/* After any fork. NULL: no thread can be started, which has been logged. */
struct disk_pool_watch *disk_pool_watch_begin(struct disk_pool *pool);
/* Before the pool is stopped. NULL is allowed. Blocks, but for no store. */
void disk_pool_watch_end(struct disk_pool_watch *watch);

#endif
