/* Mutexes with an order, conditions, and a guard for a scope.
 *
 * LOCK_RANKS is the order of all locks: with one held, only one of a later rank is
 * taken, so that no two threads ever wait for each other's. lock_try() need not keep
 * to it, as it does not wait. Who waits for a condition lets only its own lock go, and
 * so holds no other, but for LONG ones: those are held across I/O and waits, and taken
 * by threads that may wait (core/thread.h) alone.
 *
 * The tests' build asserts all that, and knows which locks a thread holds: what is
 * called with one held says so in its first line. Otherwise this is pthread's alone. */
#ifndef LEAFDISK_CORE_LOCK_H
#define LEAFDISK_CORE_LOCK_H

#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "core/time.h"

/* X(rank, how long it is held). What each protects: src/README, "Locks". */
#define LOCK_RANKS(X)                                                                                                  \
	X(CONNECTION, LONG)                                                                                            \
	X(OPEN, LONG)                                                                                                  \
	X(SCANNING, LONG)                                                                                              \
	X(NAMES, SHORT)                                                                                                \
	X(POOL, SHORT)                                                                                                 \
	X(NODES, SHORT)                                                                                                \
	X(HANDLES, SHORT)                                                                                              \
	X(BACKLOGS, SHORT)                                                                                             \
	X(DISK, SHORT)                                                                                                 \
	X(OVERFLOW, SHORT)                                                                                             \
	X(LAYERS, SHORT)                                                                                               \
	X(STACKS, SHORT)                                                                                               \
	X(MAP, SHORT)                                                                                                  \
	X(GROWTH, LONG)                                                                                                \
	X(LEAF, SHORT)                                                                                                 \
	X(FETCHES, SHORT)                                                                                              \
	X(CACHE, SHORT)                                                                                                \
	X(LOOK, SHORT)                                                                                                 \
	X(HEADERS, SHORT)                                                                                              \
	X(DISPOSALS, SHORT)                                                                                            \
	X(TUNABLES, SHORT)                                                                                             \
	X(ROOM, SHORT)                                                                                                 \
	X(MESSAGE, SHORT)                                                                                              \
	X(IDLE, SHORT)                                                                                                 \
	X(WORKERS, SHORT)                                                                                              \
	X(RELAYS, SHORT)                                                                                               \
	X(STUCK, SHORT)                                                                                                \
	X(FAULTS, SHORT)                                                                                               \
	X(TRACE, SHORT)                                                                                                \
	X(REPEATS, SHORT)                                                                                              \
	X(EVENTS, SHORT)

enum lock_rank {
	LOCK_RANK_NONE, /* of what was never initialised */
#define X(rank, length) LOCK_RANK_##rank,
	LOCK_RANKS(X)
#undef X
};

struct lock {
	pthread_mutex_t mutex;
#ifdef LEAFDISK_FAULTS
	enum lock_rank rank;
#endif
};

struct condition {
	pthread_cond_t condition;
};

/* ---- What the tests' build knows (lock.c) ---------------------------------- */

#ifdef LEAFDISK_FAULTS
void lock_set_rank(struct lock *lock, enum lock_rank rank);
void lock_check_take(const struct lock *lock);
void lock_check_wait(const struct lock *lock);
void lock_note_taken(const struct lock *lock);
void lock_note_let_go(const struct lock *lock);
/* Whether this thread holds it. */
bool lock_is_mine(const struct lock *lock);
#define lock_assert_mine(lock) g_assert(lock_is_mine(lock))
#else
#define lock_set_rank(lock, rank) ((void)(rank))
#define lock_check_take(lock) ((void)0)
#define lock_check_wait(lock) ((void)0)
#define lock_note_taken(lock) ((void)0)
#define lock_note_let_go(lock) ((void)0)
#define lock_assert_mine(lock) ((void)(lock))
#endif

/* ---- Locks ------------------------------------------------------------------- */

/* For static ones. */
#ifdef LEAFDISK_FAULTS
#define LOCK_INIT(of_rank)                                                                                             \
	{                                                                                                              \
		.mutex = PTHREAD_MUTEX_INITIALIZER, .rank = (of_rank)                                                  \
	}
#else
#define LOCK_INIT(of_rank)                                                                                             \
	{                                                                                                              \
		.mutex = PTHREAD_MUTEX_INITIALIZER                                                                     \
	}
#endif
#define CONDITION_INIT                                                                                                 \
	{                                                                                                              \
		.condition = PTHREAD_COND_INITIALIZER                                                                  \
	}

static inline void lock_init(struct lock *lock, enum lock_rank rank)
{
	pthread_mutex_init(&lock->mutex, NULL);
	lock_set_rank(lock, rank);
}

static inline void lock_destroy(struct lock *lock)
{
	pthread_mutex_destroy(&lock->mutex);
}

static inline void lock_take(struct lock *lock)
{
	lock_check_take(lock);
	pthread_mutex_lock(&lock->mutex);
	lock_note_taken(lock);
}

/* False: somebody has it. */
static inline bool lock_try(struct lock *lock)
{
	if (pthread_mutex_trylock(&lock->mutex) != 0)
		return false;
	lock_note_taken(lock);
	return true;
}

static inline void lock_let_go(struct lock *lock)
{
	lock_assert_mine(lock);
	lock_note_let_go(lock);
	pthread_mutex_unlock(&lock->mutex);
}

static inline struct lock *lock_guard_begin(struct lock *lock)
{
	lock_take(lock);
	return lock;
}

static inline void lock_guard_end(struct lock **lock)
{
	lock_let_go(*lock);
}

/* Takes LOCK until the block ends; what was declared before is cleaned up after that. */
#define LOCK_GUARD(taken)                                                                                              \
	__attribute__((cleanup(lock_guard_end), unused)) struct lock *G_PASTE(lock_guard_, __LINE__) =                 \
		lock_guard_begin(taken)

/* ---- Conditions -------------------------------------------------------------- */

static inline void condition_init(struct condition *condition)
{
	pthread_cond_init(&condition->condition, NULL);
}

static inline void condition_destroy(struct condition *condition)
{
	pthread_cond_destroy(&condition->condition);
}

static inline void condition_signal(struct condition *condition)
{
	pthread_cond_signal(&condition->condition);
}

static inline void condition_broadcast(struct condition *condition)
{
	pthread_cond_broadcast(&condition->condition);
}

/* Others have LOCK meanwhile. May return for no reason. */
static inline void lock_wait(struct lock *lock, struct condition *condition)
{
	lock_assert_mine(lock);
	lock_check_wait(lock);
	lock_note_let_go(lock);
	pthread_cond_wait(&condition->condition, &lock->mutex);
	lock_note_taken(lock);
}

/* The same; false: it is UNTIL_NS, on the clock of loop_now_ns(). UINT64_MAX: never. */
static inline bool lock_wait_until(struct lock *lock, struct condition *condition, uint64_t until_ns)
{
	struct timespec until = {.tv_sec = (time_t)(until_ns / NS_PER_S), .tv_nsec = (long)(until_ns % NS_PER_S)};
	int result;

	lock_assert_mine(lock);
	lock_check_wait(lock);
	lock_note_let_go(lock);
	result = pthread_cond_clockwait(&condition->condition, &lock->mutex, CLOCK_MONOTONIC, &until);
	lock_note_taken(lock);
	return result != ETIMEDOUT;
}

#endif
