/* Threads, told apart by what they may wait for.
 *
 *     THREAD_LOOP    its descriptors, and short locks; no call that a store can delay
 *     THREAD_STEP    the kernel, for one call or a few: never for a lock that is
 *                    held across I/O, a request, a gate, or another step
 *     THREAD_WAITER  all of these; it holds nothing that they need
 *     THREAD_OTHER   whatever it likes: a program's first thread, before it serves
 *
 * So a chain of waits ends at the kernel: waiters wait for steps and requests,
 * requests for steps, steps for nothing of ours. */
#ifndef LEAFDISK_CORE_THREAD_H
#define LEAFDISK_CORE_THREAD_H

#include <glib.h>
#include <pthread.h>
#include <stdbool.h>

enum thread_kind { THREAD_OTHER, THREAD_LOOP, THREAD_STEP, THREAD_WAITER };

/* Starts a thread that takes no signals: those belong to the main thread. NAME
 * has up to 15 characters; NULL: the program's. THREAD NULL: it is detached.
 * 0 or a negative errno. Any thread. */
int thread_spawn(pthread_t *thread, const char *name, enum thread_kind kind, void *(*main)(void *opaque), void *opaque);

/* The running thread becomes KIND; returns what it was. For a thread that was
 * not made above, or has one kind after the other. */
enum thread_kind thread_become(enum thread_kind kind);
enum thread_kind thread_kind_self(void);

/* Whether the running thread may wait: for a lock that is held across I/O, a
 * gate, a request, background work. */
bool thread_may_wait(void);
/* Whether it may make a system call that a store can delay. */
bool thread_may_block(void);

/* What waits or blocks says so in its first line. In the tests' build only. No lock is
 * held then but those of core/lock.h that may be. */
#ifdef LEAFDISK_FAULTS
void lock_check_block(void);
#define thread_assert_may_wait()                                                                                       \
	G_STMT_START                                                                                                   \
	{                                                                                                              \
		g_assert(thread_may_wait());                                                                           \
		lock_check_block();                                                                                    \
	}                                                                                                              \
	G_STMT_END
#define thread_assert_may_block()                                                                                      \
	G_STMT_START                                                                                                   \
	{                                                                                                              \
		g_assert(thread_may_block());                                                                          \
		lock_check_block();                                                                                    \
	}                                                                                                              \
	G_STMT_END
#else
#define thread_assert_may_wait() ((void)0)
#define thread_assert_may_block() ((void)0)
#endif

#endif
