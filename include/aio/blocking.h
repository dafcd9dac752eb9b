/* Loops with a queue, for code that waits on its own thread. */
#ifndef LEAFDISK_AIO_BLOCKING_H
#define LEAFDISK_AIO_BLOCKING_H

#include <sys/types.h>

#include "aio/queue.h"

struct blocking_loop {
	struct loop *loop;
	struct aio_queue *queue;
	struct list link;
	pid_t process;
};

/* One that nobody uses, or NULL when none can be had. Any thread. */
struct blocking_loop *blocking_loop_get(void);
/* Nothing may be in flight on it. */
void blocking_loop_put(struct blocking_loop *blocking);

#endif
